// A program whose initialiser runs before main().
#include <cstdio>

namespace {

const int initialised = std::puts("initialised");

}  // namespace

int main() { return initialised < 0 ? 1 : 0; }
