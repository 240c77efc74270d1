// operator new of the fuzz targets: holds what is allocated against what the input justifies.
#include <malloc.h>

#include <cstddef>
#include <cstdio>
#include <new>

#include "fuzz.hpp"

namespace {

void* take(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
  fuzz::Allocations& a = fuzz::allocations;
  if (a.limited && bytes > a.limit) {
    std::fprintf(stderr, "allocation of %zu bytes, the input justifies %zu\n", bytes, a.limit);
    std::abort();
  }
  const std::size_t whole = (bytes / alignment + 1) * alignment;
  void* const p = alignment > alignof(std::max_align_t) ? std::aligned_alloc(alignment, whole)
                                                        : std::malloc(bytes == 0 ? 1 : bytes);
  if (p == nullptr) return nullptr;
  if (bytes > a.largest) a.largest = bytes;
  a.held += std::ptrdiff_t(malloc_usable_size(p));
  if (a.held > a.most) a.most = a.held;
  if (a.limited && a.held > 4 * std::ptrdiff_t(a.limit)) {
    std::fprintf(stderr, "%td bytes held, the input justifies %zu\n", a.held, 4 * a.limit);
    std::abort();
  }
  return p;
}

template <class... Alignment>
void* take_or_throw(std::size_t bytes, Alignment... alignment) {
  void* const p = take(bytes, std::size_t(alignment)...);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

void give_back(void* p) {
  if (p != nullptr) fuzz::allocations.held -= std::ptrdiff_t(malloc_usable_size(p));
  std::free(p);
}

}  // namespace

void* operator new(std::size_t bytes) { return take_or_throw(bytes); }
void* operator new[](std::size_t bytes) { return take_or_throw(bytes); }
void* operator new(std::size_t bytes, std::align_val_t a) { return take_or_throw(bytes, a); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return take(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return take(bytes); }
void operator delete(void* p) noexcept { give_back(p); }
void operator delete[](void* p) noexcept { give_back(p); }
void operator delete(void* p, std::size_t) noexcept { give_back(p); }
void operator delete[](void* p, std::size_t) noexcept { give_back(p); }
void operator delete(void* p, std::align_val_t) noexcept { give_back(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { give_back(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { give_back(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { give_back(p); }
