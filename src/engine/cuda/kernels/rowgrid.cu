// Dynamic quantization of rows [.., C]: `lanes` threads work on one row.

#define BATCH 8
#define LEAST_STEP __uint_as_float(0x322bcc77u)  // 1e-8

//# fakeQuantizeRows
extern "C" __global__ void fakeQuantizeRows(const float* x, float* y, unsigned rows, unsigned width, unsigned levels,
                                            unsigned symmetric, unsigned lanes) {
  unsigned row = blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
  unsigned begin = row * width + threadIdx.x % lanes;
  unsigned end = row < rows ? (row + 1) * width : 0;
  float top = (float)levels;
  float most = 0.0f, least = 0.0f;
  auto load = [&](unsigned at) { return x[at]; };
  inBatches<BATCH>(begin, end, lanes, load, [&](float value, unsigned) {
    most = fmaxf(most, value);
    least = fminf(least, value);
  });
  most = laneMax(most, lanes);
  least = -laneMax(-least, lanes);
  float step = fmaxf(__fdiv_rn(rangeOf(most, least, symmetric), top), LEAST_STEP);
  float shift = zeroOf(least, step, top, symmetric);
  inBatches<BATCH>(begin, end, lanes, load, [&](float value, unsigned at) {
    y[at] = (clampTo(roundedRatio(value, step) + shift, top) - shift) * step;
  });
}

//# fakeQuantizeRowsGrad
extern "C" __global__ void fakeQuantizeRowsGrad(const float* x, const float* grad, float* xGrad, unsigned rows, unsigned width,
                                                unsigned levels, unsigned symmetric, unsigned lanes) {
  const unsigned NONE = 0xffffffffu;
  unsigned row = blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
  unsigned lane = threadIdx.x % lanes;
  unsigned begin = row * width + lane;
  unsigned end = row < rows ? (row + 1) * width : 0;
  float top = (float)levels;
  // the extremes of this thread's elements and the first places of them, a 0 never
  float high = 0.0f, low = 0.0f;
  unsigned highAt = NONE, lowAt = NONE;
  inBatches<BATCH>(begin, end, lanes, [&](unsigned at) { return x[at]; }, [&](float value, unsigned at) {
    if (value > high) {
      high = value;
      highAt = at;
    }
    if (value < low) {
      low = value;
      lowAt = at;
    }
  });
  float most = laneMax(high, lanes);
  float least = -laneMax(-low, lanes);
  float exact = __fdiv_rn(rangeOf(most, least, symmetric), top);
  float step = fmaxf(exact, LEAST_STEP);
  float shift = zeroOf(least, step, top, symmetric);
  highAt = laneLeastWord(high == most ? highAt : NONE, lanes);
  lowAt = laneLeastWord(low == least ? lowAt : NONE, lanes);

  float ofStep = 0.0f;
  inBatches<BATCH>(begin, end, lanes, [&](unsigned at) { return make_float2(x[at], grad[at]); }, [&](float2 own, unsigned at) {
    float ratio = __fdiv_rn(own.x, step);
    float whole = rintf(ratio);
    float place = whole + shift;
    float code = clampTo(place, top);
    bool inside = place == code;
    xGrad[at] = inside ? own.y : 0.0f;
    ofStep += own.y * (inside ? whole - ratio : code - shift);
  });
  ofStep = laneSum(ofStep, lanes);
  if (exact < LEAST_STEP) return;
  float ofRange = (symmetric ? 2.0f : 1.0f) * ofStep / top;
  if (symmetric) {
    // only the first of the largest magnitude
    if (most > -least || (most == -least && highAt < lowAt)) lowAt = NONE;
    else highAt = NONE;
  }
  // by the thread that wrote the element above
  if (highAt < end && highAt % width % lanes == lane) xGrad[highAt] += ofRange;
  if (lowAt < end && lowAt % width % lanes == lane) xGrad[lowAt] -= ofRange;
}
