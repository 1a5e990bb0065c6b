// Gradients of the factors of rows and columns from what clippedFakeQuantizeGrad (fusedgrid) noted of each run: partial sums of
// tiles, then these summed, always in the same order.

//# factorGrads
// A group has a tile of 1024 columns, 4 a thread, and `slab` rows, 8 at a time. rowParts [tiles, O], columnParts [slabs, I].
var<workgroup> sums: array<f32, 8 * THREADS>;

@compute @workgroup_size(THREADS)
fn factorGrads(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let tiles = (n.columns + 1023) / 1024;
  let tile = group % tiles;
  let part = group / tiles;
  let end = min(n.rows, (part + 1) * n.slab);
  let runs = n.rows * n.perRow;
  let levels = f32(n.levels);
  var ofColumn = vec4f(1.0);
  var columnSums = vec4f(0.0);
  if (n.withColumns > 0) {
    for (var k = 0u; k < 4; k++) {
      let column = tile * 1024 + k * THREADS + t;
      if (column < n.columns) {
        ofColumn[k] = columnFactors[n.columnFactors_at + column];
      }
    }
  }
  for (var first = part * n.slab; first < end; first += 8) {
    for (var r = 0u; r < 8; r++) {
      let row = first + r;
      var rowSum = 0.0;
      if (row < end) {
        var ofRow = 1.0;
        if (n.withRows > 0) {
          ofRow = rowFactors[n.rowFactors_at + row];
        }
        for (var k = 0u; k < 4; k++) {
          let column = tile * 1024 + k * THREADS + t;
          if (column >= n.columns) {
            continue;
          }
          let at = row * n.columns + column;
          let run = n.state_at + row * n.perRow + column / n.width;
          let x = weights[n.weights_at + at];
          let wide = opaque(x * ofColumn[k]);
          let step = bitcast<f32>(state[run]);
          let shift = bitcast<f32>(state[run + runs]);
          let place = roundedRatio(opaque(wide * ofRow), step) + shift;
          var given = 0.0;
          if (place >= 0.0 && place <= levels) {
            given = grad[n.grad_at + at];
          }
          if (at == state[run + 2 * runs]) {
            given += bitcast<f32>(state[run + 4 * runs]);
          }
          if (at == state[run + 3 * runs]) {
            given += bitcast<f32>(state[run + 5 * runs]);
          }
          rowSum += given * wide;
          columnSums[k] += given * ofRow * x;
        }
      }
      sums[r * THREADS + t] = rowSum;
    }
    workgroupBarrier();
    let row = first + t / 32;
    var sum = 0.0;
    for (var i = t % 32; i < THREADS; i += 32) {
      sum += sums[t / 32 * THREADS + i];
    }
    sum = laneSum(sum, t, 32); // has a barrier behind
    if (n.withRows > 0 && t % 32 == 0 && row < end) {
      rowParts[n.rowParts_at + tile * n.rows + row] = sum;
    }
  }
  if (n.withColumns == 0) {
    return;
  }
  for (var k = 0u; k < 4; k++) {
    let column = tile * 1024 + k * THREADS + t;
    if (column < n.columns) {
      columnParts[n.columnParts_at + part * n.columns + column] = columnSums[k];
    }
  }
}

//# factorSums
// 32 sums a group, each by 8 threads: the first groups those of rows, the others those of columns.
var<workgroup> sums: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn factorSums(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let group = groupOf(w, c);
  if (group >= n.groups) {
    return;
  }
  let ofRows = group < n.rowGroups;
  var at = group * 32 + t % 32;
  var sum = 0.0;
  if (ofRows) {
    if (at < n.rows) {
      for (var part = t / 32; part < n.tiles; part += 8) {
        sum += rowParts[n.rowParts_at + part * n.rows + at];
      }
    }
  } else {
    at -= n.rowGroups * 32;
    if (at < n.columns) {
      for (var part = t / 32; part < n.slabs; part += 8) {
        sum += columnParts[n.columnParts_at + part * n.columns + at];
      }
    }
  }
  sums[t] = sum;
  workgroupBarrier();
  if (t >= 32) {
    return;
  }
  for (var i = 1u; i < 8; i++) {
    sum += sums[i * 32 + t];
  }
  if (ofRows && at < n.rows) {
    rowsGrad[n.rowsGrad_at + at] = sum;
  }
  if (!ofRows && at < n.columns) {
    columnsGrad[n.columnsGrad_at + at] = sum;
  }
}
