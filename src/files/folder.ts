// What the readers and writers need of a place that holds files: a disk, a browser's file list, memory.

/** Random access to the bytes of one file. */
export interface ByteSource {
  readonly name: string;
  readonly size: number;
  /** Exactly `length` bytes from `offset`; a range outside the file is a "format" error. */
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

export interface Folder {
  /** For messages. */
  readonly name: string;
  /** Names of the files in it, sorted. */
  list(): Promise<string[]>;
  /** Opens a file by its plain name: a name with a path separator or "..", or a link out of the folder, is refused. */
  open(name: string): Promise<ByteSource>;
}

/** Receives one file, front to back. */
export interface ByteSink {
  /** The bytes may not change afterwards. What goes wrong may be told by a later call. */
  write(bytes: Uint8Array): Promise<void>;
  /** Syncs and gives the file its final name within the output. */
  close(): Promise<void>;
}

/** An output that appears as a whole (`commit`) or not at all (`discard`). */
export interface OutputFolder {
  create(name: string): Promise<ByteSink>;
  commit(): Promise<void>;
  discard(): Promise<void>;
}
