#include "pare/pipeline/dispatch.hpp"
using namespace pare;
#ifdef PARE_MISUSE
constexpr auto run = []<class Config>(std::type_identity<Config> config) { return config; };
#else
constexpr auto run = []<class Config>(std::type_identity<Config>) { return Config::prunes; };
#endif
auto carry_out(const CompressionRequest& request) { return dispatch(request, run); }
