// Python module around upfirdn2d_launch. Tensors come as addresses, so that no PyTorch headers are needed.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "upfirdn2d.h"

static void* pointer(unsigned long long address) { return reinterpret_cast<void*>(static_cast<uintptr_t>(address)); }

static PyObject* upfirdn2d(PyObject*, PyObject* args) {
    unsigned long long x, f, y, stream;
    Upfirdn2dArguments p;
    int element_type;
    if (!PyArg_ParseTuple(args, "KKK(ii)(ii)(ii)id(iiii)(ii)(ii)(LLLL)(LLLL)iK", &x, &f, &y, &p.up_x, &p.up_y, &p.down_x,
                          &p.down_y, &p.pad_x0, &p.pad_y0, &p.flip, &p.gain, &p.batch, &p.channels, &p.in_height,
                          &p.in_width, &p.out_height, &p.out_width, &p.filter_height, &p.filter_width, &p.in_stride_n,
                          &p.in_stride_c, &p.in_stride_y, &p.in_stride_x, &p.out_stride_n, &p.out_stride_c,
                          &p.out_stride_y, &p.out_stride_x, &element_type, &stream)) return nullptr;
    p.x = pointer(x), p.f = static_cast<const float*>(pointer(f)), p.y = pointer(y);
    const int code = upfirdn2d_launch(&p, element_type, pointer(stream));
    if (code != 0) return PyErr_Format(PyExc_RuntimeError, "upfirdn2d: %s", upfirdn2d_error_text(code));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"upfirdn2d", upfirdn2d, METH_VARARGS,
     "upfirdn2d(x, f, y, (up_x, up_y), (down_x, down_y), (pad_x0, pad_y0), flip, gain, x.shape, y.shape[2:], f.shape,\n"
     "          x.stride(), y.stride(), element_type, stream)\n"
     "x, f, y are addresses of device memory; see upfirdn2d.h."},
    {nullptr, nullptr, 0, nullptr}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "upfirdn2d_plugin", nullptr, -1, methods,
                                 nullptr, nullptr, nullptr, nullptr};

// PyTorch appends a number to the name of a module that it builds again in the same process.
#if !defined(TORCH_EXTENSION_NAME)
#define TORCH_EXTENSION_NAME upfirdn2d_plugin
#endif
#define JOINED(a, b) a##b
#define INITIALIZER(name) JOINED(PyInit_, name)
PyMODINIT_FUNC INITIALIZER(TORCH_EXTENSION_NAME)() { return PyModule_Create(&definition); }
