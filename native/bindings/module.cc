// The Python module: the only file that includes pybind11.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_native, module) { module.doc() = "The C++ core of pycomm."; }
