// Cosines and sines of rotary embeddings, by operations that every machine has and rounds alike.

#pragma STDC FP_CONTRACT OFF

#include <string.h>

#include "instruction_sets.h"

void tck_rotary_angles(const float *frequencies, size_t pairs, const int32_t *positions, size_t count, float *cosines,
                       float *sines) {
  for (size_t j = 0; j < count; j++, cosines += pairs, sines += pairs) {
    const double position = positions[j];
    for (size_t i = 0; i < pairs; i++) {
      double angle = position * (double)frequencies[i];
      // The nearest number of quarter turns: adding 1.5 * 2^52 leaves no bits for a fraction.
      double shifted = angle * 0x1.45F306DC9C883p-1 + 0x1.8p52;
      double quarters = shifted - 0x1.8p52;
      // pi / 2 in parts: the first two have 22 bits each, so that their products are exact.
      double rest = angle - quarters * 0x1.921FBp0;
      rest = rest - quarters * 0x1.5110Bp-22;
      rest = rest - quarters * 0x1.18469898CC517p-44;
      double square = rest * rest;
      // Polynomials for -pi / 4...pi / 4, those of the C libraries of BSD.
      double sine = 0x1.5D93A5ACFD57Cp-33;
      sine = sine * square + -0x1.AE5E68A2B9CEBp-26;
      sine = sine * square + 0x1.71DE357B1FE7Dp-19;
      sine = sine * square + -0x1.A01A019C161D5p-13;
      sine = sine * square + 0x1.111111110F8A6p-7;
      sine = sine * square + -0x1.5555555555549p-3;
      sine = rest * square * sine + rest;
      double cosine = -0x1.8FAE9BE8838D4p-37;
      cosine = cosine * square + 0x1.1EE9EBDB4B1C4p-29;
      cosine = cosine * square + -0x1.27E4F809C52ADp-22;
      cosine = cosine * square + 0x1.A01A019CB1590p-16;
      cosine = cosine * square + -0x1.6C16C16C15177p-10;
      cosine = cosine * square + 0x1.555555555554Cp-5;
      cosine = square * square * cosine + (1 - 0.5 * square);
      // The shifted sum's lowest bits are those of the number of quarter turns.
      uint64_t bits;
      memcpy(&bits, &shifted, sizeof bits);
      double first = (bits & 1) != 0 ? sine : cosine, second = (bits & 1) != 0 ? cosine : sine;
      cosines[i] = (float)(((bits + 1) & 2) != 0 ? -first : first);
      sines[i] = (float)((bits & 2) != 0 ? -second : second);
    }
  }
}
