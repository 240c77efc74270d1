// A pickle of named tensors, as torch.save writes it, read without ever running code.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pare/core/error.hpp"
#include "pare/core/text.hpp"
#include "pare/storage/file.hpp"
#include "pare/storage/pickle_stack.hpp"
#include "pare/storage/pickle_value.hpp"
#include "pare/storage/tensor_file.hpp"

namespace pare::inline PARE_TARGET {

namespace detail {

/// An interpreter of the few opcodes in PickleOp. It has no recursion, no opcode does more work
/// than its bytes and a constant account for, and what it holds is proportional to the pickle.
class PickleReader : PickleStack {
 public:
  // Far above every real model; together they bound what a file can make the reader allocate.
  static constexpr std::size_t size_limit = std::size_t{1} << 23;  ///< bytes of a pickle
  static constexpr std::size_t rank_limit = 8;

  PickleReader(std::string who, std::string_view pickle) : PickleStack(std::move(who), pickle) {}

  std::vector<PickledTensor> read() {
    if (text_.size() > size_limit)
      throw format_error(who_ + ": " + std::to_string(text_.size()) +
                         " bytes of pickle, expected at most " + std::to_string(size_limit));
    if (const auto op = number<std::uint8_t>(); op != std::uint8_t(PickleOp::proto))
      throw bad("expected opcode " + pickle_op_text(0x80) + ", got " + pickle_op_text(op));
    if (const auto protocol = number<std::uint8_t>(); protocol < 2 || protocol > 5)
      throw bad("expected a pickle protocol from 2 to 5, got " + std::to_string(protocol));
    do {
      start_ = at_;
    } while (step(number<std::uint8_t>()));
    if (at_ != text_.size())
      throw bad(std::to_string(text_.size() - at_) + " extra bytes after the end of the pickle");
    return result();
  }

 private:
  struct Tensor {
    std::int64_t storage, offset;
    Value shape, stride;  // tuples of as many integers
  };

  // ---- what stands for Python objects

  void push_global(std::string_view module, std::string_view name) {
    for (std::size_t i = 0; i < known_globals.size(); ++i)
      if (known_globals[i].module == module && known_globals[i].name == name)
        return push(Kind::global, std::int64_t(i));
    throw bad(
        "global " +
        quoted_name(std::string(module.substr(0, 60)) + " " + std::string(name.substr(0, 60))) +
        " is refused: no code is run, only tensors are built");
  }

  /// BINPERSID: ('storage', its type, its key, its device, its elements).
  void push_storage() {
    const Value id = pop(Kind::tuple, "a persistent id");
    if (id.count != 5 || element(id, 0).kind != Kind::text || text(element(id, 0)) != "storage")
      throw bad("a persistent id that is not of a storage and five elements");
    const Value type = element(id, 1), key = element(id, 2), elements = element(id, 4);
    require(type, Kind::global, "the type of a storage");
    require(key, Kind::text, "the key of a storage");
    require(element(id, 3), Kind::text, "the device of a storage");
    require(elements, Kind::integer, "the elements of a storage");
    const KnownGlobal& known = known_globals[std::size_t(type.number)];
    const bool untyped = known.global == PickleGlobal::untyped_storage;
    if (known.global != PickleGlobal::storage && !untyped)
      throw bad("'" + std::string(known.name) + "' is not the type of a storage");
    if (elements.number < 0)
      throw bad("a storage of " + std::to_string(elements.number) + " elements");
    storages_.push_back({text(key), known.dtype, std::uint64_t(elements.number)});
    untyped_.push_back(untyped);
    push(Kind::storage, std::int64_t(storages_.size() - 1));
  }

  void reduce() {
    const Value arguments = pop(Kind::tuple, "the arguments of a call");
    const Value callee = pop(Kind::global, "what is called");
    const KnownGlobal& known = known_globals[std::size_t(callee.number)];
    const auto expect = [&](std::size_t count) {
      if (arguments.count != count)
        throw bad("'" + std::string(known.name) + "' with " + std::to_string(arguments.count) +
                  " arguments, expected " + std::to_string(count));
    };
    switch (known.global) {
      case PickleGlobal::ordered_dict:
        expect(0);
        return push_dict(true);
      case PickleGlobal::rebuild_tensor:
        expect(6);  // a seventh would change what the numbers mean
        return push_tensor(arguments);
      case PickleGlobal::rebuild_typed_tensor:
        expect(7);
        return push_tensor(arguments, typed_storage(arguments));
      case PickleGlobal::rebuild_parameter:  // (tensor, requires_grad, backward_hooks)
        expect(3);
        require(element(arguments, 0), Kind::tensor, "the data of a parameter");
        return stack_.push_back(element(arguments, 0));
      case PickleGlobal::storage:
      case PickleGlobal::untyped_storage:
      case PickleGlobal::dtype:
        throw bad("'" + std::string(known.name) + "' is called");
    }
  }

  /// The storage of a tensor as elements of the dtype that its seventh argument names.
  Value typed_storage(const Value& arguments) {
    Value storage = element(arguments, 0);
    const Value dtype = element(arguments, 6);
    require(storage, Kind::storage, "the storage of a tensor");
    require(dtype, Kind::global, "the dtype of a tensor");
    const KnownGlobal& known = known_globals[std::size_t(dtype.number)];
    if (known.global != PickleGlobal::dtype)
      throw bad("'" + std::string(known.name) + "' is not a dtype");
    if (!untyped_[std::size_t(storage.number)])
      throw bad("a tensor of dtype '" + std::string(known.name) + "' in a storage of another type");
    PickledStorage typed = storages_[std::size_t(storage.number)];
    const auto width = std::uint64_t(element_bytes(known.dtype));
    if (typed.elements % width != 0)
      throw bad("a storage of " + std::to_string(typed.elements) + " bytes for elements of " +
                std::to_string(width));
    typed.dtype = known.dtype;
    typed.elements /= width;
    storages_.push_back(typed);
    untyped_.push_back(false);
    storage.number = std::int64_t(storages_.size() - 1);
    return storage;
  }

  /// (storage, storage_offset, size, stride, requires_grad, backward_hooks)
  void push_tensor(const Value& arguments) { push_tensor(arguments, element(arguments, 0)); }
  void push_tensor(const Value& arguments, const Value& storage) {
    const Value offset = element(arguments, 1);
    const Value shape = element(arguments, 2), stride = element(arguments, 3);
    require(storage, Kind::storage, "the storage of a tensor");
    if (untyped_[std::size_t(storage.number)]) throw bad("a tensor without a dtype");
    require(offset, Kind::integer, "the storage offset of a tensor");
    require(shape, Kind::tuple, "the shape of a tensor");
    require(stride, Kind::tuple, "the stride of a tensor");
    require(element(arguments, 4), Kind::boolean, "the requires_grad of a tensor");
    require(element(arguments, 5), Kind::dict, "the backward_hooks of a tensor");
    if (shape.count != stride.count)
      throw bad("a tensor with " + std::to_string(shape.count) + " sides and " +
                std::to_string(stride.count) + " strides");
    if (shape.count > rank_limit)
      throw bad("a tensor of rank " + std::to_string(shape.count) + ", expected at most " +
                std::to_string(rank_limit));
    for (const Value* tuple : {&shape, &stride})
      for (std::size_t i = 0; i < tuple->count; ++i)
        require(element(*tuple, i), Kind::integer, "a side or stride of a tensor");
    if (offset.number < 0)
      throw bad("a tensor with storage offset " + std::to_string(offset.number));
    tensors_.push_back({storage.number, offset.number, shape, stride});
    push(Kind::tensor, std::int64_t(tensors_.size() - 1));
  }

  /// An OrderedDict's attribute `_metadata`, versions of modules, is the only state that is set.
  void build() {
    const Value state = pop(Kind::dict, "a state");
    const Value object = top();
    require(object, Kind::dict, "what a state is set on");
    if (!dicts_[std::size_t(object.number)].ordered ||
        dicts_[std::size_t(state.number)].items != 1 || items_.empty() ||
        items_.back().dict != state.number || text(items_.back().key) != "_metadata")
      throw bad("a state other than the _metadata of an OrderedDict");
  }

  /// Runs one opcode. Returns false for the last one.
  bool step(std::uint8_t op) {
    switch (PickleOp{op}) {
      case PickleOp::stop:
        return false;
      case PickleOp::frame: {
        const auto bytes = number<std::uint64_t>();
        if (bytes > text_.size() - at_)
          throw bad("a frame of " + std::to_string(bytes) + " bytes where " +
                    std::to_string(text_.size() - at_) + " are left");
        return true;
      }
      case PickleOp::mark:
        marks_.push_back(stack_.size());
        return true;
      case PickleOp::none:
        push(Kind::none);
        return true;
      case PickleOp::new_true:
        push(Kind::boolean, 1);
        return true;
      case PickleOp::new_false:
        push(Kind::boolean, 0);
        return true;
      case PickleOp::bin_int:
        push(Kind::integer, number<std::int32_t>());
        return true;
      case PickleOp::bin_int1:
        push(Kind::integer, number<std::uint8_t>());
        return true;
      case PickleOp::bin_int2:
        push(Kind::integer, number<std::uint16_t>());
        return true;
      case PickleOp::long1:
        push_integer();
        return true;
      case PickleOp::bin_unicode:
        push_text(number<std::uint32_t>());
        return true;
      case PickleOp::short_bin_unicode:
        push_text(number<std::uint8_t>());
        return true;
      case PickleOp::empty_dict:
        push_dict(false);
        return true;
      case PickleOp::set_item: {
        if (stack_.size() < 2) throw bad("the stack is empty");
        set_items(stack_.size() - 2);
        return true;
      }
      case PickleOp::set_items:
        set_items(pop_mark());
        return true;
      case PickleOp::empty_tuple:
        push_tuple_of(0);
        return true;
      case PickleOp::tuple1:
        push_tuple_of(1);
        return true;
      case PickleOp::tuple2:
        push_tuple_of(2);
        return true;
      case PickleOp::tuple3:
        push_tuple_of(3);
        return true;
      case PickleOp::tuple:
        push_tuple(pop_mark());
        return true;
      case PickleOp::bin_put:
        put(number<std::uint8_t>());
        return true;
      case PickleOp::long_bin_put:
        put(number<std::uint32_t>());
        return true;
      case PickleOp::memoize:
        put(memo_.size());
        return true;
      case PickleOp::bin_get:
        get(number<std::uint8_t>());
        return true;
      case PickleOp::long_bin_get:
        get(number<std::uint32_t>());
        return true;
      case PickleOp::global: {
        const auto module = line();
        push_global(module, line());
        return true;
      }
      case PickleOp::stack_global: {
        const Value name = pop(Kind::text, "the name of a global");
        push_global(text(pop(Kind::text, "the module of a global")), text(name));
        return true;
      }
      case PickleOp::reduce:
        reduce();
        return true;
      case PickleOp::build:
        build();
        return true;
      case PickleOp::bin_pers_id:
        push_storage();
        return true;
      case PickleOp::proto:
        break;  // once, at the beginning
    }
    throw bad("opcode " + pickle_op_text(op) + " is refused: a file of tensors has no use for it");
  }

  /// The tensors in the dictionary that is left on the stack.
  std::vector<PickledTensor> result() {
    if (!marks_.empty() || stack_.size() != 1)
      throw bad("expected one value at the end, got " +
                std::to_string(stack_.size() + marks_.size()));
    const Value dict = pop(Kind::dict, "what was saved");
    std::erase_if(items_, [&](const Item& item) { return item.dict != dict.number; });
    const auto less = [&](const Item& a, const Item& b) { return text(a.key) < text(b.key); };
    std::sort(items_.begin(), items_.end(), less);
    std::vector<PickledTensor> tensors;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const Item& item = items_[i];
      const std::string_view name = text(item.key);
      if (i > 0 && name == text(items_[i - 1].key))
        throw format_error(who_ + ": entry " + quoted_name(name) + " occurs twice");
      if (item.value.kind != Kind::tensor)
        throw format_error(who_ + ": entry " + quoted_name(name) + ": expected a tensor, got " +
                           pickle_kind_name(item.value.kind));
      const Tensor& tensor = tensors_[std::size_t(item.value.number)];
      tensors.push_back({name, storages_[std::size_t(tensor.storage)], std::uint64_t(tensor.offset),
                         integers(tensor.shape), integers(tensor.stride)});
    }
    return tensors;
  }

  std::vector<std::int64_t> integers(const Value& tuple) const {
    std::vector<std::int64_t> values(tuple.count);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = element(tuple, i).number;
    return values;
  }

  std::vector<PickledStorage> storages_;
  std::vector<bool> untyped_;  // which of them
  std::vector<Tensor> tensors_;
};

/// The tensors in `pickle`, ordered by name; strings point into it. `who` begins every message.
/// Throws format_error naming the opcode, the global or the value that a dictionary of tensors does
/// not have, and the byte at which it stands.
inline std::vector<PickledTensor> read_tensor_pickle(const std::string& who,
                                                     std::string_view pickle) {
  return PickleReader(who, pickle).read();
}

}  // namespace detail

}  // namespace pare
