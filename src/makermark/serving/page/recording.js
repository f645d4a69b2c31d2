// Recording from the microphone as a WAV file. MediaRecorder is not used: its codec is lossy.
import { encodeWav } from "./wav.js";

const UNPROCESSED = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** Starts recording. @returns {Promise<() => Promise<File>>} a function that stops it and returns the recording. */
export async function record(maxSeconds, onLength) {
  if (!navigator.mediaDevices) throw new Error("the browser allows recording only over https or on localhost");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: UNPROCESSED });
  const context = new AudioContext();
  await context.audioWorklet.addModule("/page/recorder.js");
  const node = new AudioWorkletNode(context, "recorder");
  node.connect(context.destination); // outputs silence; browsers may not run an unconnected node
  const blocks = [];
  let length = 0;
  node.port.onmessage = ({ data }) => {
    if (length >= maxSeconds * context.sampleRate) return;
    blocks.push(data);
    length += data.length;
    onLength(length / context.sampleRate);
  };
  context.createMediaStreamSource(stream).connect(node);
  return async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    const samples = new Float32Array(length);
    let offset = 0;
    for (const block of blocks) { samples.set(block, offset); offset += block.length; }
    return new File([encodeWav(samples, context.sampleRate)], "recording.wav", { type: "audio/wav" });
  };
}
