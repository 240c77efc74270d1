// The version of pare. The build, the package and pkg-config read it here.
#pragma once

#define PARE_VERSION_MAJOR 0
#define PARE_VERSION_MINOR 1
#define PARE_VERSION_PATCH 0

#define PARE_DETAIL_TEXT_OF(x) #x
#define PARE_DETAIL_TEXT(x) PARE_DETAIL_TEXT_OF(x)
/// The version for people, "major.minor.patch".
#define PARE_VERSION_TEXT              \
  PARE_DETAIL_TEXT(PARE_VERSION_MAJOR) \
  "." PARE_DETAIL_TEXT(PARE_VERSION_MINOR) "." PARE_DETAIL_TEXT(PARE_VERSION_PATCH)

/// One number to compare with: 100 * (100 * major + minor) + patch.
#define PARE_VERSION (100 * (100 * PARE_VERSION_MAJOR + PARE_VERSION_MINOR) + PARE_VERSION_PATCH)
