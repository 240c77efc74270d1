// The values of a pickle while it is read: its bytes, the stack, the memo.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/storage/pickle_value.hpp"

namespace pare::inline PARE_TARGET::detail {

/// What opcodes of a pickle work on. Nothing here does more work than the bytes it takes and a constant
/// account for.
class PickleStack {
 protected:
  using Value = PickleValue;
  using Kind = PickleKind;

  struct Item {
    std::int64_t dict;
    Value key, value;
  };
  struct Dict {
    std::uint32_t items = 0;
    bool ordered = false;
  };

  PickleStack(std::string who, std::string_view pickle) : who_(std::move(who)), text_(pickle) {}

  format_error bad(const std::string& what) const {
    return format_error(who_ + ": " + what + ", at byte " + std::to_string(start_));
  }

  // ---- the bytes

  std::string_view take(std::uint64_t bytes) {
    if (bytes > text_.size() - at_)
      throw bad("ends too early: " + std::to_string(bytes) + " bytes were expected and " +
                std::to_string(text_.size() - at_) + " are left");
    const auto taken = text_.substr(at_, bytes);
    at_ += bytes;
    return taken;
  }
  template <class U>
  U number() {
    U value;
    std::memcpy(&value, take(sizeof(U)).data(), sizeof(U));
    return value;
  }
  std::string_view line() {
    const std::size_t end = text_.find('\n', at_);
    if (end == text_.npos) throw bad("ends too early: the name of a global has no end");
    const auto taken = text_.substr(at_, end - at_);
    at_ = end + 1;
    return taken;
  }

  // ---- the stack and the memo

  void push(Kind kind, std::int64_t n = 0, std::uint32_t count = 0) {
    stack_.push_back({kind, count, n});
  }
  /// Takes the top of the stack, which an opcode may do down to the latest mark only.
  Value pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) throw bad("the stack is empty");
    const Value value = stack_.back();
    stack_.pop_back();
    return value;
  }
  Value pop(Kind kind, const char* what) {
    const Value value = pop();
    require(value, kind, what);
    return value;
  }
  void require(const Value& value, Kind kind, const char* what) const {
    if (value.kind != kind)
      throw bad(std::string(what) + ": expected " + pickle_kind_name(kind) + ", got " +
                pickle_kind_name(value.kind));
  }
  Value& top() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) throw bad("the stack is empty");
    return stack_.back();
  }
  /// Removes the latest mark; where on the stack it was.
  std::size_t pop_mark() {
    if (marks_.empty()) throw bad("there is no mark on the stack");
    const std::size_t mark = marks_.back();
    marks_.pop_back();
    return mark;
  }
  void put(std::uint64_t index) {
    // As many as there are opcodes, not as many as an index claims.
    if (index >= text_.size())
      throw bad("memo entry " + std::to_string(index) + " in a pickle of " +
                std::to_string(text_.size()) + " bytes");
    const Value value = top();
    if (index >= memo_.size()) {
      memo_.resize(index + 1);
      written_.resize(index + 1);
    }
    memo_[index] = value;
    written_[index] = true;
  }
  void get(std::uint64_t index) {
    if (index >= memo_.size() || !written_[index])
      throw bad("memo entry " + std::to_string(index) + " was never written");
    stack_.push_back(memo_[index]);
  }

  // ---- values

  std::string_view text(const Value& value) const {
    return text_.substr(std::size_t(value.number), value.count);
  }
  void push_text(std::uint64_t bytes) {
    const auto taken = take(bytes);
    push(Kind::text, std::int64_t(at_ - taken.size()), std::uint32_t(taken.size()));
  }
  void push_integer() {  // LONG1: little-endian, two's complement
    const auto bytes = take(number<std::uint8_t>());
    if (bytes.size() > 8)
      throw bad("an integer of " + std::to_string(bytes.size()) + " bytes, expected at most 8");
    std::uint64_t value = !bytes.empty() && (bytes.back() & 0x80) ? ~std::uint64_t{0} : 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    push(Kind::integer, std::int64_t(value));
  }
  /// Makes a tuple of the stack from `first` on.
  void push_tuple(std::size_t first) {
    const std::size_t begin = elements_.size();
    elements_.insert(elements_.end(), stack_.begin() + std::ptrdiff_t(first), stack_.end());
    stack_.resize(first);
    push(Kind::tuple, std::int64_t(begin), std::uint32_t(elements_.size() - begin));
  }
  void push_tuple_of(std::size_t count) {
    if (stack_.size() - (marks_.empty() ? 0 : marks_.back()) < count)
      throw bad("the stack is empty");
    push_tuple(stack_.size() - count);
  }
  const Value& element(const Value& tuple, std::size_t i) const {
    return elements_[std::size_t(tuple.number) + i];
  }
  void push_dict(bool ordered) {
    dicts_.push_back({0, ordered});
    push(Kind::dict, std::int64_t(dicts_.size() - 1));
  }
  /// Moves the key-value pairs on the stack from `first` on into the dictionary below them.
  void set_items(std::size_t first) {
    const std::size_t count = stack_.size() - first;
    if (count % 2 != 0) throw bad("a key without a value");
    if (first <= (marks_.empty() ? 0 : marks_.back())) throw bad("the stack is empty");
    const Value dict = stack_[first - 1];
    require(dict, Kind::dict, "what is written to");
    for (std::size_t i = first; i < stack_.size(); i += 2) {
      require(stack_[i], Kind::text, "a key");
      items_.push_back({dict.number, stack_[i], stack_[i + 1]});
    }
    dicts_[std::size_t(dict.number)].items += std::uint32_t(count / 2);
    stack_.resize(first);
  }

  std::string who_;
  std::string_view text_;
  std::size_t at_ = 0, start_ = 0;
  std::vector<Value> stack_, memo_, elements_;
  std::vector<bool> written_;
  std::vector<std::size_t> marks_;
  std::vector<Dict> dicts_;
  std::vector<Item> items_;
};

}  // namespace pare::inline PARE_TARGET::detail
