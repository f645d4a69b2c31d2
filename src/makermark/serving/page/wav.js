// Samples as 16-bit WAV, and whatever this browser decodes as samples.

/** @param {Float32Array} samples one channel, full scale 1; @returns {Blob} */
export function wav(samples, rateHz) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (place, letters) => [...letters].forEach((letter, i) => bytes.setUint8(place + i, letter.charCodeAt(0)));
  text(0, "RIFF"); bytes.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true); bytes.setUint16(20, 1, true); bytes.setUint16(22, 1, true);
  bytes.setUint32(24, rateHz, true); bytes.setUint32(28, 2 * rateHz, true);
  bytes.setUint16(32, 2, true); bytes.setUint16(34, 16, true);
  text(36, "data"); bytes.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => bytes.setInt16(44 + 2 * i, Math.round(Math.max(-1, Math.min(1, sample)) * 32767), true));
  return new Blob([bytes], { type: "audio/wav" });
}

const READ_BY_SERVER = /\.(wav|wave|flac|ogg|oga|opus|mp3|aif|aiff|aifc|au|caf|w64)$/i;

/** The file as the server can read it: as it is, or decoded here where its kind is none that libsndfile knows. */
export async function readable(file) {
  if (READ_BY_SERVER.test(file.name) || file.size === 0) return file;
  const context = new OfflineAudioContext(1, 1, 48000);
  try {
    const heard = await context.decodeAudioData(await file.arrayBuffer());
    const mixed = new Float32Array(heard.length);
    for (let channel = 0; channel < heard.numberOfChannels; channel += 1)
      heard.getChannelData(channel).forEach((sample, i) => { mixed[i] += sample / heard.numberOfChannels; });
    return new File([wav(mixed, heard.sampleRate)], `${file.name}.wav`, { type: "audio/wav" });
  } catch {
    return file; // the server says why not
  }
}
