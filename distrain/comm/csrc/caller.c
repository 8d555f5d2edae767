/* Allreduces that the calling thread carries out itself, as one call from Python.
 *
 * In the memory of a node, or between nodes by a route (route.c).
 *
 * Through ctypes, with the checks in Python, the way into the exchange took longer than the exchange. The
 * type `Caller` looks at a tensor or an array, takes the channel if nobody has it, begins and waits for a
 * short while. Whatever is not simple it leaves alone: it returns None, and Python goes the general way.
 *
 * The channel belongs to one of three: nobody (FREE), a thread inside a call (CALLING), or Python code that
 * has said so (HELD), such as an operation of the engine. The state changes under the GIL. Between nodes it is
 * MPI that must belong to one thread: the gate of the engine says whether it is free.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>
#include <time.h>

#include "clock.h"
#include "route.h"
#include "channel.h"
#include "reduce.h"

enum { FREE, CALLING, HELD };
enum { TYPE, PER_ITEM, DIVIDES, FIRST_OP }; /* of a row: how the C side calls a type, see shared/caller.py */
#define UNKNOWN 255
#define NOTHING -1
/* So often a call between nodes goes the general way, which reads what late ranks have told meanwhile. */
#define LISTENS 1024

static PyObject *str_dtype, *str_is_cpu, *str_is_contiguous, *str_is_neg, *str_is_conj, *str_data_ptr, *str_numel,
    *str_async_op, *str_reduce_op;

/* Of the engine, in Python: engine/gate.py. Read and written under the GIL, `news` also without. */
typedef struct {
    int busy;  /* operations wait or are in flight */
    int works; /* a caller calls MPI, in place of the engine's thread */
    int news;  /* something was submitted */
} gate;

/* In Python: Tags of messages/tags.py. */
typedef struct {
    int64_t next, limit;
} tags;

typedef struct {
    PyObject_HEAD
    channel *handle;
    int ranks, spins, yields, state;
    int64_t patience_ns, waited_ns;
    Py_ssize_t limit; /* bytes of the longest payload */
    unsigned long long calls, turn;
    /* The last call, for reports */
    PyObject *dtype;
    Py_ssize_t count;
    long reduction;
    double since;
    /* The one before it */
    PyObject *dtype_before;
    Py_ssize_t count_before;
    long reduction_before;
    /* Given by Python */
    PyObject *kinds; /* tuple of the types of tensors */
    PyObject *rows;  /* dtype of torch or numpy -> row */
    PyObject *names; /* name of a reduction -> its number */
    PyObject *done;  /* what a call returns that is complete */
    /* Between nodes */
    gate *gate;
    tags *tags;
    PyObject *routes; /* (dtype, bytes, reduction) -> address of a route; NULL: this is a channel's */
    unsigned long long route; /* of the last call */
    int tag;
    /* A call that was begun, is not complete, and that Python has not said it goes on with; what it returned,
     * or NOTHING. A signal may raise an error in place of the answer. */
    int left;
    PyObject *payload; /* of it: others may still write there */
} caller;

/* Leave the rest of a call to Python. */
static PyObject *leave(caller *self, int code, PyObject *payload)
{
    self->left = code;
    Py_XSETREF(self->payload, Py_NewRef(payload));
    return PyLong_FromLong(code);
}

/* Not this way: errors are found again, and told, on the general way. */
static PyObject *declined(void)
{
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* Count a call and note it for reports; return the time. */
static int64_t remember(caller *self, PyObject *dtype, Py_ssize_t count, long reduction)
{
    int64_t begin = now_ns();
    self->calls++;
    PyObject *forgotten = self->dtype_before;
    self->dtype_before = self->dtype;
    self->count_before = self->count;
    self->reduction_before = self->reduction;
    self->dtype = Py_NewRef(dtype);
    Py_XDECREF(forgotten);
    self->count = count;
    self->reduction = reduction;
    self->since = begin * 1e-9;
    return begin;
}

/* The same as Tags.take. */
static int take(tags *t, int64_t count)
{
    if (t->next + count > t->limit)
        t->next = 0;
    t->next += count;
    return (int)(t->next - count);
}

/* Exchange with other nodes. Return as `exchange` does, and COMPLETE if something was submitted meanwhile. Of what
 * returns a number Python hands the rest to the engine, whose thread leaves MPI alone until then. */
static PyObject *carry(caller *self, PyObject *owner, void *payload, Py_ssize_t bytes, PyObject *dtype,
                       long reduction)
{
    gate *g = self->gate;
    PyObject *key = Py_BuildValue("(Onl)", dtype, bytes, reduction);
    PyObject *found = key ? PyDict_GetItemWithError(self->routes, key) : NULL;
    Py_XDECREF(key);
    if (!found || g->busy || g->works || self->left != NOTHING || ++self->turn % LISTENS == 0)
        return declined();
    route *r = PyLong_AsVoidPtr(found);
    g->works = 1;
    g->news = 0;
    self->route = (uintptr_t)r;
    self->tag = take(self->tags, r->lanes) + (int)r->mark;
    int64_t begin = remember(self, dtype, (Py_ssize_t)r->count, reduction);
    int code;
    Py_BEGIN_ALLOW_THREADS
    code = distrain_route_carry(r, payload, self->tag, &g->news, self->patience_ns);
    Py_END_ALLOW_THREADS
    self->waited_ns += now_ns() - begin;
    if (code != COMPLETE || g->busy)
        return leave(self, code, owner);
    g->works = 0;
    return Py_NewRef(self->done);
}

/* Exchange `bytes` of a payload, which belongs to an object. Return `done`, a number (begun, and not complete:
 * IDLE, MOVED, MISMATCH; the channel is HELD), or None: nothing was begun. */
static PyObject *exchange(caller *self, PyObject *owner, void *payload, Py_ssize_t bytes, PyObject *dtype,
                          long reduction)
{
    if (self->routes)
        return carry(self, owner, payload, bytes, dtype, reduction);
    PyObject *found = PyDict_GetItemWithError(self->rows, dtype);
    if (!found || bytes > self->limit || self->state != FREE || reduction < 0)
        return declined();
    const unsigned char *row = (const unsigned char *)PyBytes_AS_STRING(found);
    if (FIRST_OP + reduction >= PyBytes_GET_SIZE(found) || row[FIRST_OP + reduction] == UNKNOWN)
        return declined();
    self->state = CALLING;
    int type = row[TYPE], per_item = row[PER_ITEM], op = row[FIRST_OP + reduction], code;
    int divisor = reduction == 1 && row[DIVIDES] ? self->ranks : 1;
    size_t count = bytes / (type_size(type) * per_item);
    int64_t begin = remember(self, dtype, (Py_ssize_t)count, reduction);
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
    return code == COMPLETE ? Py_NewRef(self->done) : leave(self, code, owner);
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
                result = exchange(self, tensor, payload, bytes, dtype, reduction);
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
        result = exchange(self, args[0], view.buf, view.len, dtype, reduction);
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

/* claimed(): Python goes on with what was left. */
static PyObject *caller_claimed(caller *self, PyObject *unused)
{
    (void)unused;
    self->left = NOTHING;
    Py_CLEAR(self->payload);
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
                            "kinds", "rows", "names", "done", "gate", "tags", "routes", NULL};
    unsigned long long handle, gate_at = 0, tags_at = 0;
    double patience;
    PyObject *kinds, *rows, *names, *done, *routes = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "KiiidnO!O!O!O|KKO!", words, &handle, &self->ranks, &self->spins,
                                     &self->yields, &patience, &self->limit, &PyTuple_Type, &kinds,
                                     &PyDict_Type, &rows, &PyDict_Type, &names, &done, &gate_at, &tags_at,
                                     &PyDict_Type, &routes))
        return -1;
    self->handle = (channel *)(uintptr_t)handle;
    self->patience_ns = (int64_t)(patience * 1e9);
    Py_XSETREF(self->kinds, Py_NewRef(kinds));
    Py_XSETREF(self->rows, Py_NewRef(rows));
    Py_XSETREF(self->names, Py_NewRef(names));
    Py_XSETREF(self->done, Py_NewRef(done));
    self->gate = (gate *)(uintptr_t)gate_at;
    self->tags = (tags *)(uintptr_t)tags_at;
    self->left = NOTHING;
    Py_XSETREF(self->routes, Py_XNewRef(routes));
    return 0;
}

static void caller_dealloc(caller *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->dtype);
    Py_XDECREF(self->dtype_before);
    Py_XDECREF(self->kinds);
    Py_XDECREF(self->rows);
    Py_XDECREF(self->names);
    Py_XDECREF(self->done);
    Py_XDECREF(self->routes);
    Py_XDECREF(self->payload);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef METHODS[] = {
    {"tensors", (PyCFunction)(void (*)(void))caller_tensors, METH_FASTCALL, NULL},
    {"array", (PyCFunction)(void (*)(void))caller_array, METH_FASTCALL, NULL},
    {"claim", (PyCFunction)caller_claim, METH_NOARGS, NULL},
    {"release", (PyCFunction)caller_release, METH_NOARGS, NULL},
    {"claimed", (PyCFunction)caller_claimed, METH_NOARGS, NULL},
    {"take_waited", (PyCFunction)caller_take_waited, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef MEMBERS[] = {
    {"calls", T_ULONGLONG, offsetof(caller, calls), READONLY, NULL},
    {"dtype", T_OBJECT, offsetof(caller, dtype), READONLY, NULL}, /* None before the first call */
    {"dtype_before", T_OBJECT, offsetof(caller, dtype_before), READONLY, NULL},
    {"count_before", T_PYSSIZET, offsetof(caller, count_before), READONLY, NULL},
    {"reduction_before", T_LONG, offsetof(caller, reduction_before), READONLY, NULL},
    {"count", T_PYSSIZET, offsetof(caller, count), READONLY, NULL},
    {"reduction", T_LONG, offsetof(caller, reduction), READONLY, NULL},
    {"state", T_INT, offsetof(caller, state), READONLY, NULL}, /* 0: calls may come */
    {"since", T_DOUBLE, offsetof(caller, since), READONLY, NULL},
    {"route", T_ULONGLONG, offsetof(caller, route), READONLY, NULL},
    {"tag", T_INT, offsetof(caller, tag), READONLY, NULL},
    {"left", T_INT, offsetof(caller, left), READONLY, NULL}, /* negative: nothing */
    {"payload", T_OBJECT, offsetof(caller, payload), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot SLOTS[] = {
    {Py_tp_init, caller_init},   {Py_tp_dealloc, caller_dealloc}, {Py_tp_methods, METHODS},
    {Py_tp_members, MEMBERS}, {0, NULL},
};
static PyType_Spec SPEC = {"distrain.comm._wire.Caller", sizeof(caller), 0, Py_TPFLAGS_DEFAULT, SLOTS};

PyMODINIT_FUNC PyInit__wire(void)
{
    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_wire", NULL, -1, NULL, NULL, NULL, NULL, NULL};
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
