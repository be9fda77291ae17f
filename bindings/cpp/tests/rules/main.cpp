// The rules of bindings/RULES.md, tested through ols/ols.hpp; each test names its rules. Arguments: the path of ols.h, a folder for files.
#include "rules.hpp"

using namespace rules;

int main(int, char **arguments) {
    const std::string folder = arguments[2];
    library(arguments[1]);
    options_and_errors();
    handles(folder);
    calls();
    state(folder);
    return test::finish("rules");
}
