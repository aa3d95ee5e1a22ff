// core/scalar.h for the emulation: the same rules, which also count the elements they are applied
// to, whether these belong to the tensor or not.
#pragma once

#include "counts.h"

#define apply_rule uncounted_apply_rule
#define apply_rule_to_pair uncounted_apply_rule_to_pair
#include_next "core/scalar.h"
#undef apply_rule
#undef apply_rule_to_pair

namespace dropout {

template <class T, class Rule>
T apply_rule(T x, bool keep, const Rule& rule) {
  ++emulation::applied();
  return uncounted_apply_rule(x, keep, rule);
}

template <class T, class Rule>
uint32_t apply_rule_to_pair(
    T first, bool keep_first, T second, bool keep_second, const Rule& rule) {
  emulation::applied() += 2;
  return uncounted_apply_rule_to_pair(first, keep_first, second, keep_second, rule);
}

}  // namespace dropout
