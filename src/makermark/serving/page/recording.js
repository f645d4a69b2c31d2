// The microphone as a WAV file: plain samples, not what MediaRecorder's lossy codec leaves of them.
import { wav } from "./wav.js";

const PLAIN = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** Starts; @returns {Promise<() => Promise<File>>} what stops it and gives the recording. */
export async function record(maxSeconds, tick) {
  if (!navigator.mediaDevices) throw new Error("recording needs https, or this page on the machine itself");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: PLAIN });
  const context = new AudioContext();
  await context.audioWorklet.addModule("/page/recorder.js");
  const node = new AudioWorkletNode(context, "recorder");
  node.connect(context.destination); // silence: a node that leads nowhere may not be run
  const blocks = [];
  let length = 0;
  node.port.onmessage = ({ data }) => {
    if (length >= maxSeconds * context.sampleRate) return;
    blocks.push(data);
    length += data.length;
    tick(length / context.sampleRate);
  };
  context.createMediaStreamSource(stream).connect(node);
  return async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    const samples = new Float32Array(length);
    let place = 0;
    for (const block of blocks) { samples.set(block, place); place += block.length; }
    return new File([wav(samples, context.sampleRate)], "recording.wav", { type: "audio/wav" });
  };
}
