// Numbers for people: one way to write each unit, everywhere.

/** "24.73"; "-" for nothing. */
export function formatPerplexity(value: number | undefined): string {
  if (value === undefined) return "-";
  return value >= 10000 ? value.toExponential(2) : value.toFixed(2);
}

/** "2.066": bits per weight. */
export const formatBits = (bits: number | undefined): string => (bits === undefined ? "-" : bits.toFixed(3));

/** Small positive numbers over many scales: "0.0312", "1.2e-5". */
export function formatSmall(value: number | undefined): string {
  if (value === undefined) return "-";
  if (value === 0) return "0";
  return Math.abs(value) < 1e-3 ? value.toExponential(2) : value.toPrecision(3);
}

/** A share 0-1 as "97.3 %". */
export const formatShare = (share: number | undefined): string =>
  share === undefined ? "-" : `${(100 * share).toFixed(1)} %`;

/** Decimal units, as disks are sold: "13.6 MB". */
export function formatBytes(bytes: number | undefined): string {
  if (bytes === undefined) return "-";
  let value = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 999.5) return unit === "B" ? `${value} B` : `${value.toPrecision(3)} ${unit}`;
    value /= 1000;
  }
  return `${value.toPrecision(3)} TB`;
}

/** "0.4 s", "12.3 s", "2 min 05 s", "1 h 02 min"; "-" when it is not known. */
export function formatSeconds(seconds: number | undefined): string {
  if (seconds === undefined || !Number.isFinite(seconds)) return "-";
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const pad = (value: number) => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
}

/** "340,707". */
export const formatCount = (count: number): string => count.toLocaleString("en-US");

/** Parameters: "39.6 M". */
export function formatParameters(count: number): string {
  if (count < 999_500) return formatCount(count);
  return count < 999_500_000 ? `${(count / 1e6).toPrecision(3)} M` : `${(count / 1e9).toPrecision(3)} B`;
}
