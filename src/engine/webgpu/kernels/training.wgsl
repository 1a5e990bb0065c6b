// 1024 elements a group. kept = 1 - rate decay, rate and inverse2 with the corrections of the moments in them.

//# adamwStep
@compute @workgroup_size(THREADS)
fn adamwStep(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) c: vec3u, @builtin(local_invocation_index) t: u32) {
  let begin = groupOf(w, c) * 1024 + t;
  for (var i = begin; i < min(begin + 1024, n.size); i += THREADS) {
    let g = gradient[n.gradient_at + i];
    let m = n.beta1 * first[n.first_at + i] + n.rest1 * g;
    let v = n.beta2 * second[n.second_at + i] + n.rest2 * g * g;
    first[n.first_at + i] = m;
    second[n.second_at + i] = v;
    let p = parameter[n.parameter_at + i];
    parameter[n.parameter_at + i] = p * n.kept - n.rate * m / (sqrt(v * n.inverse2) + n.epsilon);
  }
}
