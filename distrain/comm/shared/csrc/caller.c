/* Allreduces that the calling thread carries out itself, as one call from Python.
 *
 * Through ctypes, with the checks in Python, the way into the exchange took longer than the exchange. The
 * type `Caller` looks at a tensor or an array, takes the channel if nobody has it, begins and waits for a
 * short while. Whatever is not simple it leaves alone: it returns None, and Python goes the general way.
 *
 * The channel belongs to one of three: nobody (FREE), a thread inside a call (CALLING), or Python code that
 * has said so (HELD), such as an operation of the engine. The state changes under the GIL.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>
#include <time.h>

#include "channel.h"
#include "reduce.h"

enum { FREE, CALLING, HELD };
enum { TYPE, PER_ITEM, DIVIDES, FIRST_OP }; /* of a row: how the C side calls a type, see caller.py */
#define UNKNOWN 255

static PyObject *str_dtype, *str_is_cpu, *str_is_contiguous, *str_is_neg, *str_is_conj, *str_data_ptr, *str_numel,
    *str_async_op, *str_reduce_op;

typedef struct {
    PyObject_HEAD
    channel *handle;
    int ranks, spins, yields, state;
    int64_t patience_ns, waited_ns;
    Py_ssize_t limit; /* bytes of the longest payload */
    unsigned long long calls;
    /* The last call, for reports */
    PyObject *dtype;
    Py_ssize_t count;
    long reduction;
    double since;
    /* Given by Python */
    PyObject *kinds; /* tuple of the types of tensors */
    PyObject *rows;  /* dtype of torch or numpy -> row */
    PyObject *names; /* name of a reduction -> its number */
    PyObject *done;  /* what a call returns that is complete */
} caller;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Not this way: errors are found again, and told, on the general way. */
static PyObject *declined(void)
{
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* Exchange `bytes` of a payload. Return `done`, a number (begun, and not complete: IDLE, MOVED, MISMATCH;
 * the channel is HELD), or None: nothing was begun. */
static PyObject *exchange(caller *self, void *payload, Py_ssize_t bytes, PyObject *dtype, long reduction)
{
    PyObject *found = PyDict_GetItemWithError(self->rows, dtype);
    if (!found || bytes > self->limit || self->state != FREE || reduction < 0)
        return declined();
    const unsigned char *row = (const unsigned char *)PyBytes_AS_STRING(found);
    if (FIRST_OP + reduction >= PyBytes_GET_SIZE(found) || row[FIRST_OP + reduction] == UNKNOWN)
        return declined();
    self->state = CALLING;
    self->calls++;
    int type = row[TYPE], per_item = row[PER_ITEM], op = row[FIRST_OP + reduction], code;
    int divisor = reduction == 1 && row[DIVIDES] ? self->ranks : 1;
    size_t count = bytes / (type_size(type) * per_item);
    int64_t begin = now_ns();
    Py_XSETREF(self->dtype, Py_NewRef(dtype));
    self->count = count;
    self->reduction = reduction;
    self->since = begin * 1e-9;
    Py_BEGIN_ALLOW_THREADS
    code = distrain_shared_begin(self->handle, payload, count, type, per_item, op, divisor, REDUCE | GATHER);
    if (code == IDLE || code == MOVED) {
        do /* until nothing has moved for so long */
            code = distrain_shared_advance(self->handle, self->patience_ns, self->patience_ns, self->spins,
                                           self->yields);
        while (code == MOVED);
        self->waited_ns += now_ns() - begin;
    }
    Py_END_ALLOW_THREADS
    self->state = code == COMPLETE ? FREE : HELD;
    return code == COMPLETE ? Py_NewRef(self->done) : PyLong_FromLong(code);
}

static int is_true(PyObject *value)
{
    int found = value == Py_True;
    Py_XDECREF(value);
    return found;
}

static PyObject *exchange_tensor(caller *self, PyObject *tensor, long reduction)
{
    if (!is_true(PyObject_GetAttr(tensor, str_is_cpu)) ||
        !is_true(PyObject_CallMethodNoArgs(tensor, str_is_contiguous)) ||
        is_true(PyObject_CallMethodNoArgs(tensor, str_is_neg)))
        return declined();
    PyObject *dtype = PyObject_GetAttr(tensor, str_dtype);
    PyObject *address = PyObject_CallMethodNoArgs(tensor, str_data_ptr);
    PyObject *numel = PyObject_CallMethodNoArgs(tensor, str_numel), *result = NULL;
    if (dtype && address && numel) {
        PyObject *row = PyDict_GetItemWithError(self->rows, dtype);
        void *payload = PyLong_AsVoidPtr(address);
        Py_ssize_t count = PyLong_AsSsize_t(numel);
        if (row && count >= 0 && !PyErr_Occurred()) {
            const unsigned char *codes = (const unsigned char *)PyBytes_AS_STRING(row);
            Py_ssize_t bytes = count * (Py_ssize_t)type_size(codes[TYPE]) * codes[PER_ITEM];
            if (codes[PER_ITEM] == 1 || !is_true(PyObject_CallMethodNoArgs(tensor, str_is_conj)))
                result = exchange(self, payload, bytes, dtype, reduction);
        }
    }
    Py_XDECREF(dtype);
    Py_XDECREF(address);
    Py_XDECREF(numel);
    return result ? result : declined();
}

static int is_tensor(caller *self, PyObject *object)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->kinds); i++)
        if (PyTuple_GET_ITEM(self->kinds, i) == (PyObject *)Py_TYPE(object))
            return 1;
    return 0;
}

/* tensors(list of one tensor, options of torch): only of calls that torch waits for. */
static PyObject *caller_tensors(caller *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyList_CheckExact(args[0]) || PyList_GET_SIZE(args[0]) != 1)
        return declined();
    PyObject *tensor = PyList_GET_ITEM(args[0], 0), *async = PyObject_GetAttr(args[1], str_async_op);
    int awaited = async == Py_False;
    Py_XDECREF(async);
    if (!awaited || !is_tensor(self, tensor))
        return declined();
    PyObject *op = PyObject_GetAttr(args[1], str_reduce_op);
    long reduction = op ? (long)PyObject_Hash(op) : -1; /* the hash of torch's ReduceOp is its number */
    Py_XDECREF(op);
    Py_INCREF(tensor); /* the list is the caller's, and the GIL will be released */
    PyObject *result = exchange_tensor(self, tensor, reduction);
    Py_DECREF(tensor);
    return result;
}

/* array(numpy array or tensor, name of a reduction) */
static PyObject *caller_array(caller *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *name = count == 2 ? PyDict_GetItemWithError(self->names, args[1]) : NULL;
    long reduction = name ? PyLong_AsLong(name) : -1;
    if (reduction < 0)
        return declined();
    if (is_tensor(self, args[0]))
        return exchange_tensor(self, args[0], reduction);
    PyObject *dtype = PyObject_GetAttr(args[0], str_dtype), *result = NULL;
    Py_buffer view;
    if (dtype && !PyObject_GetBuffer(args[0], &view, PyBUF_WRITABLE)) { /* refuses gaps and read-only ones */
        result = exchange(self, view.buf, view.len, dtype, reduction);
        PyBuffer_Release(&view);
    }
    Py_XDECREF(dtype);
    return result ? result : declined();
}

/* claim(): from now on the channel is Python's; waits for a thread that is inside a call. */
static PyObject *caller_claim(caller *self, PyObject *unused)
{
    (void)unused;
    while (self->state == CALLING) {
        struct timespec pause = {0, 20000};
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&pause, NULL);
        Py_END_ALLOW_THREADS
    }
    self->state = HELD;
    Py_RETURN_NONE;
}

/* release(): nothing is left on the channel; calls may take it. */
static PyObject *caller_release(caller *self, PyObject *unused)
{
    (void)unused;
    if (self->state == HELD)
        self->state = FREE;
    Py_RETURN_NONE;
}

/* take_waited(): seconds in which calls waited for others, since the last time. */
static PyObject *caller_take_waited(caller *self, PyObject *unused)
{
    (void)unused;
    int64_t waited = self->waited_ns;
    self->waited_ns = 0;
    return PyFloat_FromDouble(waited * 1e-9);
}

static int caller_init(caller *self, PyObject *args, PyObject *keywords)
{
    static char *words[] = {"handle", "ranks", "spins", "yields", "patience_seconds", "limit",
                            "kinds", "rows", "names", "done", NULL};
    unsigned long long handle;
    double patience;
    PyObject *kinds, *rows, *names, *done;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "KiiidnO!O!O!O", words, &handle, &self->ranks, &self->spins,
                                     &self->yields, &patience, &self->limit, &PyTuple_Type, &kinds,
                                     &PyDict_Type, &rows, &PyDict_Type, &names, &done))
        return -1;
    self->handle = (channel *)(uintptr_t)handle;
    self->patience_ns = (int64_t)(patience * 1e9);
    Py_XSETREF(self->kinds, Py_NewRef(kinds));
    Py_XSETREF(self->rows, Py_NewRef(rows));
    Py_XSETREF(self->names, Py_NewRef(names));
    Py_XSETREF(self->done, Py_NewRef(done));
    return 0;
}

static void caller_dealloc(caller *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->dtype);
    Py_XDECREF(self->kinds);
    Py_XDECREF(self->rows);
    Py_XDECREF(self->names);
    Py_XDECREF(self->done);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef METHODS[] = {
    {"tensors", (PyCFunction)(void (*)(void))caller_tensors, METH_FASTCALL, NULL},
    {"array", (PyCFunction)(void (*)(void))caller_array, METH_FASTCALL, NULL},
    {"claim", (PyCFunction)caller_claim, METH_NOARGS, NULL},
    {"release", (PyCFunction)caller_release, METH_NOARGS, NULL},
    {"take_waited", (PyCFunction)caller_take_waited, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef MEMBERS[] = {
    {"calls", T_ULONGLONG, offsetof(caller, calls), READONLY, NULL},
    {"dtype", T_OBJECT, offsetof(caller, dtype), READONLY, NULL}, /* None before the first call */
    {"count", T_PYSSIZET, offsetof(caller, count), READONLY, NULL},
    {"reduction", T_LONG, offsetof(caller, reduction), READONLY, NULL},
    {"state", T_INT, offsetof(caller, state), READONLY, NULL}, /* 0: calls may come */
    {"since", T_DOUBLE, offsetof(caller, since), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot SLOTS[] = {
    {Py_tp_init, caller_init},   {Py_tp_dealloc, caller_dealloc}, {Py_tp_methods, METHODS},
    {Py_tp_members, MEMBERS}, {0, NULL},
};
static PyType_Spec SPEC = {"distrain.comm.shared._shared.Caller", sizeof(caller), 0, Py_TPFLAGS_DEFAULT, SLOTS};

/* For which Python this was compiled: one of another version must not load the module. */
API const char *distrain_shared_soabi(void) { return SOABI; }

PyMODINIT_FUNC PyInit__shared(void)
{
    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_shared", NULL, -1, NULL, NULL, NULL, NULL, NULL};
    static struct { PyObject **text; const char *value; } texts[] = {
        {&str_dtype, "dtype"}, {&str_is_cpu, "is_cpu"}, {&str_is_neg, "is_neg"}, {&str_is_conj, "is_conj"},
        {&str_is_contiguous, "is_contiguous"}, {&str_data_ptr, "data_ptr"}, {&str_numel, "numel"},
        {&str_async_op, "asyncOp"}, {&str_reduce_op, "reduceOp"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!(*texts[i].text = PyUnicode_InternFromString(texts[i].value)))
            return NULL;
    PyObject *made = PyModule_Create(&module), *type = PyType_FromSpec(&SPEC);
    if (!made || !type || PyModule_AddObjectRef(made, "Caller", type))
        return NULL;
    return made;
}
