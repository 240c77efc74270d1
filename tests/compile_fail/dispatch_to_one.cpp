#include "pare/pipeline/dispatch.hpp"
using namespace pare;
#ifdef PARE_MISUSE
void run(std::type_identity<Compression<Unstructured>>) {}
#else
constexpr auto run = []<class Config>(std::type_identity<Config>) {};
#endif
void carry_out(const CompressionRequest& request) { dispatch(request, run); }
