// Gradients of the factors of rows and columns from what clippedFakeQuantizeGrad (fusedgrid) noted of each run: partial sums of
// tiles, then these summed, always in the same order.

/** What was noted of a run. */
struct RunState {
  float step, shift;
  unsigned highAt, lowAt;
  float ofMost, ofLeast;
};

__device__ inline RunState readState(const unsigned* __restrict__ state, unsigned runs, unsigned run) {
  const unsigned* own = state + run;
  return {__uint_as_float(own[0]),    __uint_as_float(own[runs]),     own[2 * runs], own[3 * runs],
          __uint_as_float(own[4 * runs]), __uint_as_float(own[5 * runs])};
}

#define AHEAD 2

//# factorGrads
// A group has a tile of 1024 columns, 4 a thread, and `slab` rows, 8 at a time. rowParts [tiles, O], columnParts [slabs, I].
extern "C" __global__ void factorGrads(const float* __restrict__ weights, const float* __restrict__ rowFactors,
                                       const float* __restrict__ columnFactors, const float* __restrict__ grad,
                                       const unsigned* __restrict__ state, float* rowParts, float* columnParts, unsigned rows,
                                       unsigned columns, unsigned width, unsigned perRow, unsigned levels, unsigned slab,
                                       unsigned withRows, unsigned withColumns) {
  __shared__ float sums[8][THREADS];
  unsigned tiles = (columns + 1023) / 1024;
  unsigned tile = blockIdx.x % tiles, part = blockIdx.x / tiles;
  unsigned end = min(rows, (part + 1) * slab);
  unsigned runs = rows * perRow;
  float top = (float)levels;
  unsigned runOf[4];
  float ofColumn[4], columnSums[4];
#pragma unroll
  for (unsigned k = 0; k < 4; k++) {
    unsigned column = tile * 1024 + k * THREADS + threadIdx.x;
    runOf[k] = column / width;
    ofColumn[k] = withColumns && column < columns ? columnFactors[column] : 1.0f;
    columnSums[k] = 0.0f;
  }
  // rows are on their way while as many are worked on: the compiler loads nothing ahead of a division
  float next[AHEAD][2][4];  // weights and gradients
  auto load = [&](float (&to)[2][4], unsigned row) {
#pragma unroll
    for (unsigned k = 0; k < 4; k++) {
      unsigned column = tile * 1024 + k * THREADS + threadIdx.x;
      bool there = row < end && column < columns;
      to[0][k] = there ? weights[row * columns + column] : 0.0f;
      to[1][k] = there ? grad[row * columns + column] : 0.0f;
    }
  };
#pragma unroll
  for (unsigned a = 0; a < AHEAD; a++) load(next[a], part * slab + a);
  for (unsigned first = part * slab; first < end; first += 8) {
#pragma unroll 1
    for (unsigned r = 0; r < 8; r += AHEAD) {
      float now[AHEAD][2][4], ofRow[AHEAD];
      RunState ofRuns[AHEAD];
#pragma unroll
      for (unsigned a = 0; a < AHEAD; a++) {
        unsigned row = min(first + r + a, rows - 1);
        ofRow[a] = withRows ? rowFactors[row] : 1.0f;
        ofRuns[a] = readState(state, runs, row * perRow);  // of the whole row, where it is one run
      }
#pragma unroll
      for (unsigned a = 0; a < AHEAD; a++) {
#pragma unroll
        for (unsigned k = 0; k < 4; k++) {
          now[a][0][k] = next[a][0][k];
          now[a][1][k] = next[a][1][k];
        }
        load(next[a], first + r + AHEAD + a);
      }
#pragma unroll
      for (unsigned a = 0; a < AHEAD; a++) {
        unsigned row = first + r + a;
        float rowSum = 0.0f;
        if (row < end) {
          RunState ofRun = ofRuns[a];
#pragma unroll
          for (unsigned k = 0; k < 4; k++) {
            unsigned column = tile * 1024 + k * THREADS + threadIdx.x;
            if (column >= columns) continue;
            unsigned at = row * columns + column;
            float x = now[a][0][k], ofOutput = now[a][1][k];
            if (perRow > 1) ofRun = readState(state, runs, row * perRow + runOf[k]);
            float wide = __fmul_rn(x, ofColumn[k]);
            float place = roundedRatio(__fmul_rn(wide, ofRow[a]), ofRun.step) + ofRun.shift;
            float given = place >= 0.0f && place <= top ? ofOutput : 0.0f;
            if (at == ofRun.highAt) given += ofRun.ofMost;
            if (at == ofRun.lowAt) given += ofRun.ofLeast;
            rowSum += given * wide;
            columnSums[k] += __fmul_rn(given, ofRow[a]) * x;
          }
        }
        sums[r + a][threadIdx.x] = rowSum;
      }
    }
    __syncthreads();
    unsigned row = first + threadIdx.x / 32;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x % 32; i < THREADS; i += 32) sum += sums[threadIdx.x / 32][i];
    sum = warpSum(sum);
    if (withRows && threadIdx.x % 32 == 0 && row < end) rowParts[tile * rows + row] = sum;
    __syncthreads();
  }
  if (!withColumns) return;
#pragma unroll
  for (unsigned k = 0; k < 4; k++) {
    unsigned column = tile * 1024 + k * THREADS + threadIdx.x;
    if (column < columns) columnParts[part * columns + column] = columnSums[k];
  }
}

//# factorSums
// 32 sums a group, each by 8 threads: the first groups those of rows, the others those of columns.
extern "C" __global__ void factorSums(const float* rowParts, const float* columnParts, float* rowsGrad, float* columnsGrad,
                                      unsigned rows, unsigned columns, unsigned tiles, unsigned slabs, unsigned rowGroups) {
  __shared__ float sums[THREADS];
  bool ofRows = blockIdx.x < rowGroups;
  const float* parts = ofRows ? rowParts : columnParts;
  unsigned size = ofRows ? rows : columns, count = ofRows ? tiles : slabs;
  unsigned at = (blockIdx.x - (ofRows ? 0 : rowGroups)) * 32 + threadIdx.x % 32;
  float sum = 0.0f;
  if (at < size)
    for (unsigned part = threadIdx.x / 32; part < count; part += 8) sum += parts[part * size + at];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= 32 || at >= size) return;
  for (unsigned i = 1; i < 8; i++) sum += sums[i * 32 + threadIdx.x];
  (ofRows ? rowsGrad : columnsGrad)[at] = sum;
}
