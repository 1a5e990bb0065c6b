// [rows, columns] -> [columns, rows]

//# transposePlain
// A thread an element: reads lie together, writes a row apart, so that each of them moves 32 bytes for 4.
extern "C" __global__ void transposePlain(const float* a, float* y, unsigned rows, unsigned columns) {
  unsigned i = blockIdx.x * THREADS + threadIdx.x;
  if (i < rows * columns) y[(size_t)(i % columns) * rows + i / columns] = a[i];
}

//# transposeBanks
// A tile of 32 x 32 through shared memory: writes lie together, too. Its columns lie 32 words apart, all in one bank, and the 32
// reads of a warp wait for one another.
extern "C" __global__ void transposeBanks(const float* a, float* y, unsigned rows, unsigned columns) {
  __shared__ float tile[32][32];
  unsigned across = (columns + 31) / 32;
  unsigned row0 = blockIdx.x / across * 32, column0 = blockIdx.x % across * 32;
  unsigned x = threadIdx.x % 32, first = threadIdx.x / 32;
  for (unsigned j = first; j < 32; j += THREADS / 32)
    if (row0 + j < rows && column0 + x < columns) tile[j][x] = a[(size_t)(row0 + j) * columns + column0 + x];
  __syncthreads();
  for (unsigned j = first; j < 32; j += THREADS / 32)
    if (column0 + j < columns && row0 + x < rows) y[(size_t)(column0 + j) * rows + row0 + x] = tile[x][j];
}
