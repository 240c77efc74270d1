#include <cstdio>

#include "pare/core/version.hpp"

int version_of_pare();

int main() {
  std::printf("pare %d.%d.%d: exported\n", PARE_VERSION_MAJOR, PARE_VERSION_MINOR,
              PARE_VERSION_PATCH);
  return version_of_pare() == PARE_VERSION ? 0 : 1;
}
