// Python module around bias_act_launch. Tensors come as addresses, so that no PyTorch headers are needed.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "bias_act.h"

static void* pointer(unsigned long long address) { return reinterpret_cast<void*>(static_cast<uintptr_t>(address)); }

static PyObject* bias_act(PyObject*, PyObject* args) {
    unsigned long long x, b, xref, yref, dy, y, stream;
    BiasActArguments p;
    int element_type;
    if (!PyArg_ParseTuple(args, "KKKKKKLLLiidddiK", &x, &b, &xref, &yref, &dy, &y, &p.count, &p.bias_size, &p.bias_step,
                          &p.grad, &p.act, &p.alpha, &p.gain, &p.clamp, &element_type, &stream)) return nullptr;
    p.x = pointer(x), p.b = pointer(b), p.xref = pointer(xref), p.yref = pointer(yref), p.dy = pointer(dy), p.y = pointer(y);
    const int code = bias_act_launch(&p, element_type, pointer(stream));
    if (code != 0) return PyErr_Format(PyExc_RuntimeError, "bias_act: %s", bias_act_error_text(code));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"bias_act", bias_act, METH_VARARGS,
     "bias_act(x, b, xref, yref, dy, y, count, bias_size, bias_step, grad, act, alpha, gain, clamp, element_type, stream)\n"
     "Addresses of device memory (0 = none); see bias_act.h."},
    {nullptr, nullptr, 0, nullptr}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "bias_act_plugin", nullptr, -1, methods,
                                 nullptr, nullptr, nullptr, nullptr};

// PyTorch appends a number to the name of a module that it builds again in the same process.
#if !defined(TORCH_EXTENSION_NAME)
#define TORCH_EXTENSION_NAME bias_act_plugin
#endif
#define JOINED(a, b) a##b
#define INITIALIZER(name) JOINED(PyInit_, name)
PyMODINIT_FUNC INITIALIZER(TORCH_EXTENSION_NAME)() { return PyModule_Create(&definition); }
