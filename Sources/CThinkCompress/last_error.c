#include "last_error.h"

#include <string.h>

// In C, as Swift has no variables of threads; of a fixed size, so that telling of a lack of memory needs none.
static _Thread_local char last_error[1024];

void tcl_set_last_error(const char *message) {
  size_t length = strlen(message);
  if (length >= sizeof last_error) {
    length = sizeof last_error - 1;
    // Not amid a character of UTF-8.
    while (length > 0 && ((unsigned char)message[length] & 0xC0) == 0x80) length--;
  }
  memcpy(last_error, message, length);
  last_error[length] = '\0';
}

const char *tcl_last_error(void) { return last_error; }
