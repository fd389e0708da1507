// Compares the gates of feed-forward layers with float64, within the bound that the header states.

#include <math.h>
#include <string.h>

#include "check.h"

enum { MOST_GATES = 67 };
// Gates far from zero, at the end of every count: the squares of some are infinite.
static const float extremes[] = {0, -0.0f, 30, -30, 1e6f, -1e6f, 3e38f, -3e38f, NAN};
enum { EXTREMES = sizeof extremes / sizeof *extremes };

static double sigmoid(tck_activation activation, double gate) {
  double bent = activation == TCK_SILU ? gate : 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate);
  return 1 / (1 + exp(-bent));
}

static void compare_count(tck_activation activation, size_t count) {
  float gates[MOST_GATES + EXTREMES + 1], ups[MOST_GATES + EXTREMES] = {0}, products[MOST_GATES + EXTREMES + 1];
  for (size_t i = 0; i < count; i++) {
    gates[i] = (float)((int)(random_bits() % 20001) - 10000) / (random_bits() & 1 ? 3000.0f : 100.0f);
    ups[i] = (float)((int)(random_bits() % 20001) - 10000) / 1000.0f;
  }
  for (size_t i = 0; i < EXTREMES; i++) {
    gates[count + i] = extremes[i];
    ups[count + i] = 1;
  }
  count += EXTREMES;
  gates[count] = 5;
  memcpy(products, gates, sizeof products);
  other->multiply_gates(activation, products, ups, count);
  for (size_t i = 0; i < count; i++) {
    if (isnan(gates[i])) {
      expect(isnan(products[i]), "multiply_gates", "NaN", activation, count, i, 0);
      continue;
    }
    double exact = sigmoid(activation, gates[i]), magnitude = fabs((double)gates[i] * ups[i]);
    double bound = magnitude * (exact * (0x1p-16 + 0x1p-22) + 0x1p-59) + 0x1p-148;
    expect(fabs(products[i] - (double)gates[i] * ups[i] * exact) <= bound, "multiply_gates", "product", activation,
           count, i, 0);
  }
  expect(products[count] == 5, "multiply_gates", "writes beyond", activation, count, 0, 0);
}

void compare_gates(void) {
  for (size_t count = 0; count <= MOST_GATES; count++) {
    compare_count(TCK_SILU, count);
    compare_count(TCK_GELU, count);
  }
}
