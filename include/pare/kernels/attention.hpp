// What an attention does: plain data.
#pragma once

#include "pare/core/matrix.hpp"

namespace pare::inline PARE_TARGET::kernels {

/// Causal self-attention of windows of equal length.
struct AttentionShape {
  index_t heads = 0;     ///< query heads
  index_t kv_heads = 0;  ///< key-value heads; divides heads, see kv_head
  index_t head_dim = 0;  ///< numbers of a head
  index_t seqlen = 0;    ///< tokens of a window
  /// Columns from a query head to the next: head_dim where they lie side by side, 3 head_dim in a
  /// qkv that is fused by head.
  index_t q_step = 0;
  index_t kv_step = 0;  ///< the same of keys and of values
  double scale = 1;     ///< scores are scale * q . k
  double soft_cap = 0;  ///< scores become soft_cap * tanh(score / soft_cap); 0: they stay
  index_t window = 0;   ///< positions that a query sees, itself included; 0: all before it

  /// Query heads that read the same key-value head.
  PARE_HOST_DEVICE index_t group() const { return heads / kv_heads; }
  /// The key-value head that a query head reads.
  PARE_HOST_DEVICE index_t kv_head(index_t head) const { return head / group(); }
  /// The first position that the query at a position sees.
  PARE_HOST_DEVICE index_t oldest(index_t query) const {
    return window > 0 && query >= window ? query - window + 1 : 0;
  }
};

}  // namespace pare::kernels
