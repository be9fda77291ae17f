// The module of ols/torch.hpp: the conformance cases, then what users of LibTorch rely on; each test names its rules of bindings/RULES.md. Arguments: a
// folder for files, the stand-in for the CUDA driver.
#include "torch_module.hpp"
#include "../torch_conformance.hpp"

using namespace torch_module;

int main(int, char **arguments) {
    const std::string folder = arguments[1];
    torch::manual_seed(0);
    test::begin("r08 r16 r17 r19 r27 r28 the conformance cases");
    vectors::run_all<torch_conformance::Subject>(torch_conformance::reason_to_skip);
    gradients();
    input(folder);
    state(folder);
    device_tensors(arguments[2], folder);
    return test::finish("torch module");
}
