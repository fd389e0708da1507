// What happens before the command's main function. There is nothing to call: linking it is enough.

#ifndef COMMAND_START_H
#define COMMAND_START_H

#endif
