// For the library's own use: what tc_last_error tells.
#ifndef TC_LAST_ERROR_H
#define TC_LAST_ERROR_H

/// Keeps as much of a message for this thread as there is room for.
void tcl_set_last_error(const char *message);

/// What was kept; "" at first.
const char *tcl_last_error(void);

#endif
