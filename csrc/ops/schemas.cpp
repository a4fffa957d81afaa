// Every op of the library, in one place. Shapes: README "Ops"; semantics: benign_kernels/reference.
#include <torch/csrc/stable/library.h>

// alpha and beta are the activation's parameters (csrc/model/activation.h); those it does not have are ignored.
// A `…_rows` tensor holds one number per row and overrides the plain number beside it.
// Each argument that is given takes time to convert, 0.1 to 0.2 µs; the many of an attack therefore have defaults.
STABLE_TORCH_LIBRARY(benign_kernels, m) {
  m.def(
      "two_layer(Tensor x, Tensor W, Tensor a, Tensor? bias, Tensor? head_bias, str activation, float alpha, "
      "float beta, int patches) -> Tensor");
  m.def(
      "two_layer_value_and_grad(Tensor x, Tensor W, Tensor a, Tensor? bias, Tensor? head_bias, Tensor? cotangent, "
      "str activation, float alpha, float beta, int patches) -> (Tensor, Tensor)");
  m.def(
      "two_layer_parameter_grad(Tensor x, Tensor W, Tensor a, Tensor? bias, Tensor cotangent, str activation, "
      "float alpha, float beta, int patches) -> (Tensor, Tensor, Tensor)");
  m.def(
      "l2_pgd_step(Tensor x, Tensor origin, Tensor grad, Tensor? step_rows, Tensor? radius_rows, float step, "
      "float radius) -> Tensor");
  m.def(
      "l2_pgd_step_(Tensor(a!) x, Tensor origin, Tensor grad, Tensor? step_rows, Tensor? radius_rows, float step, "
      "float radius) -> ()");
  m.def(
      "linf_pgd_step(Tensor x, Tensor origin, Tensor grad, Tensor? step_rows, Tensor? radius_rows, float step, "
      "float radius) -> Tensor");
  m.def(
      "linf_pgd_step_(Tensor(a!) x, Tensor origin, Tensor grad, Tensor? step_rows, Tensor? radius_rows, float step, "
      "float radius) -> ()");
  m.def(
      "pgd(Tensor x0, Tensor y, Tensor W, Tensor a, Tensor? bias, Tensor? head_bias, Tensor? gram, "
      "Tensor? start, Tensor? radius_rows, Tensor? step_rows, float radius, float step, int steps, str norm=\"l2\", "
      "str loss=\"margin\", str direction=\"exact\", str floor_rule=\"added\", float floor=0, float loss_scale=1, "
      "bool worst=False, float? box_lo=None, float? box_hi=None, bool trajectory=False, bool stop_early=False, "
      "bool need_x=True, str algorithm=\"auto\", str activation=\"relu\", float alpha=0, float beta=0, int patches=1) "
      "-> (Tensor x, Tensor logits, Tensor margin, Tensor trajectory)");
  // v_…: velocities. attacked, clean: outputs at each record; scalars: the mean losses there, ‖W‖, ‖W − W0‖, ‖∇L‖
  // (5, records, …).
  m.def(
      "train(Tensor x, Tensor y, Tensor W, Tensor a, Tensor? bias, Tensor? head_bias, Tensor? v_W, Tensor? v_a, "
      "Tensor? v_bias, Tensor? v_head_bias, Tensor? gram, Tensor first_W, Tensor step_size, Tensor? mixture, "
      "Tensor? momentum, Tensor? weight_decay, Tensor? distance, Tensor? radius_rows, Tensor? step_rows, float radius, "
      "float step, int steps, str loss, bool train_a, bool train_bias, bool train_head_bias, bool carry_gram, "
      "int iteration, int every, bool clean, bool norms, str activation, float alpha, float beta, int patches) "
      "-> (Tensor W, Tensor a, Tensor bias, Tensor head_bias, Tensor v_W, Tensor v_a, Tensor v_bias, "
      "Tensor v_head_bias, Tensor gram, Tensor attacked, Tensor clean, Tensor scalars)");
}
