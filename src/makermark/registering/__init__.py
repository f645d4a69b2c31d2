"""Old import path of `makermark.serving.registered_model`; models that version 0.1 registered import it."""
