// Build identity: lets Python notice a stale core.
#include "base/version.h"
