// Python module around filtered_lrelu_launch. Tensors come as addresses, so that no PyTorch headers are needed.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "filtered_lrelu.h"

static bool read_images(PyObject* object, ImageStack& images) {
    unsigned long long address;
    if (!PyArg_ParseTuple(object, "KiiLLLL", &address, &images.height, &images.width, &images.stride_n, &images.stride_c,
                          &images.stride_y, &images.stride_x)) return false;
    images.values = reinterpret_cast<const void*>(static_cast<uintptr_t>(address));
    return true;
}

static bool read_filter(PyObject* object, FilterTaps& filter) {
    unsigned long long address;
    if (!PyArg_ParseTuple(object, "Kii", &address, &filter.count, &filter.separable)) return false;
    filter.taps = reinterpret_cast<const float*>(static_cast<uintptr_t>(address));
    return true;
}

static PyObject* filtered_lrelu(PyObject*, PyObject* args) {
    unsigned long long b, stream;
    PyObject *x, *z, *y, *up_filter, *z_filter, *down_filter;
    FilteredLreluArguments p;
    int element_type;
    if (!PyArg_ParseTuple(args, "OOOKOOO(iii)(ii)(ii)(ii)(ii)(ii)(dd)(ddd)iK", &x, &z, &y, &b, &up_filter, &z_filter, &down_filter,
                          &p.up, &p.z_up, &p.down, &p.up_pad_x, &p.up_pad_y, &p.z_pad_x, &p.z_pad_y, &p.down_pad_x,
                          &p.down_pad_y, &p.fine_width, &p.fine_height, &p.batch, &p.channels, &p.up_scale, &p.scale, &p.gain,
                          &p.slope, &p.clamp, &element_type, &stream)) return nullptr;
    if (!read_images(x, p.x) || !read_images(z, p.z) || !read_images(y, p.y)) return nullptr;
    if (!read_filter(up_filter, p.up_filter) || !read_filter(z_filter, p.z_filter) || !read_filter(down_filter, p.down_filter))
        return nullptr;
    p.b = reinterpret_cast<const void*>(static_cast<uintptr_t>(b));
    const int code = filtered_lrelu_launch(&p, element_type, reinterpret_cast<void*>(static_cast<uintptr_t>(stream)));
    if (code != 0) return PyErr_Format(PyExc_RuntimeError, "filtered_lrelu: %s", filtered_lrelu_error_text(code));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"filtered_lrelu", filtered_lrelu, METH_VARARGS,
     "filtered_lrelu(x, z, y, b, up_filter, z_filter, down_filter, (up, z_up, down), up_pad, z_pad, down_pad, fine_size,\n"
     "               (batch, channels), (up_scale, scale), (gain, slope, clamp), element_type, stream)\n"
     "x, z, y are (address, height, width, strides n, c, y, x), filters (address, taps, separable); pads and sizes (x, y);\n"
     "addresses are those of device memory, 0 = none; see filtered_lrelu.h."},
    {nullptr, nullptr, 0, nullptr}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "filtered_lrelu_plugin", nullptr, -1, methods,
                                 nullptr, nullptr, nullptr, nullptr};

// PyTorch appends a number to the name of a module that it builds again in the same process.
#if !defined(TORCH_EXTENSION_NAME)
#define TORCH_EXTENSION_NAME filtered_lrelu_plugin
#endif
#define JOINED(a, b) a##b
#define INITIALIZER(name) JOINED(PyInit_, name)
PyMODINIT_FUNC INITIALIZER(TORCH_EXTENSION_NAME)() { return PyModule_Create(&definition); }
