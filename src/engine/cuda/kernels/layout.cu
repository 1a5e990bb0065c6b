
//# transpose
// A tile of 32 x 32 a group, through shared memory with a column to spare against bank conflicts.
extern "C" __global__ void transpose(const float* a, float* y, unsigned rows, unsigned columns) {
  __shared__ float tile[32][33];
  unsigned across = (columns + 31) / 32;
  unsigned row0 = blockIdx.x / across * 32, column0 = blockIdx.x % across * 32;
  unsigned x = threadIdx.x % 32;
  for (unsigned r = threadIdx.x / 32; r < 32; r += THREADS / 32)
    if (row0 + r < rows && column0 + x < columns) tile[r][x] = a[(size_t)(row0 + r) * columns + column0 + x];
  __syncthreads();
  for (unsigned r = threadIdx.x / 32; r < 32; r += THREADS / 32)
    if (column0 + r < columns && row0 + x < rows) y[(size_t)(column0 + r) * rows + row0 + x] = tile[x][r];
}

//# gatherRows
// Of a table of `rows` rows, those from `first` on, `count` of which are here; others are left alone.
extern "C" __global__ void gatherRows(const float* table, const int* indices, float* y, int* fault, unsigned rows, unsigned first,
                                      unsigned count, unsigned width, unsigned size, int check) {
  unsigned begin = blockIdx.x * 1024 + threadIdx.x;
  for (unsigned i = begin; i < min(begin + 1024, size); i += THREADS) {
    unsigned at = i / width;
    int row = indices[at];
    if (row < 0 || row >= (int)rows) {
      fault[0] = check;
      fault[1] = row;
      fault[2] = at;
    } else if ((unsigned)row - first < count) y[i] = table[(size_t)(row - first) * width + i % width];
  }
}

//# codebookColumns
// [C, v] -> [v][C] from books[at] on, so that neighboring threads search neighboring codewords; C goes to books[stage].
extern "C" __global__ void codebookColumns(const float* codebook, float* books, unsigned codewords, unsigned length,
                                           unsigned stage, unsigned at) {
  unsigned i = blockIdx.x * THREADS + threadIdx.x;
  if (i == 0) books[stage] = (float)codewords;
  if (i < codewords * length) books[(size_t)at + i] = codebook[(size_t)(i % codewords) * length + i / codewords];
}
