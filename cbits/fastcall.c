/* fastcall.c - the hot calls as C functions of the extension module that cffi builds (D10).
 *
 * A call that cannot block keeps the interpreter lock: with a second thread computing, each
 * release costs a switch interval of 5 ms.  It is given up to sleep, to spin for longer than
 * a look, and to copy much.
 *
 * EndBase is a subclass of the C part of io.RawIOBase with one field.  Everything that is not hot, and
 * every error, goes to the Python class above it (_raise).
 */
#include <Python.h> /* the build says which limited API */

#include <errno.h>
#include <fcntl.h>

#include "pipe.h"
#include "record.h"
#include "sys.h"

#define SMALL_BYTES 1024
#define KEEP_LOCK_BYTES ((size_t)1 << 18) /* about 6 us of copying */

int shmp_install_fast(void);

/* Where our field begins in an instance: after io.RawIOBase's own. */
static Py_ssize_t field_offset;

static struct shmp_end **field(PyObject *self)
{
    return (struct shmp_end **)(void *)((char *)self + field_offset);
}

/* Not Py_RETURN_NONE: with the headers of Python 3.12 and later it takes no reference, and 3.11, for
 * which the stable ABI is good as well, misses one each time. */
static PyObject *none(void)
{
    Py_INCREF(Py_None);
    return Py_None;
}

static PyObject *closed_error(void)
{
    PyErr_SetString(PyExc_ValueError, "I/O operation on closed file");
    return NULL;
}

static PyObject *os_error(PyObject *self, ssize_t r)
{
    PyObject *nothing = PyObject_CallMethod(self, "_raise", "i", (int)-r);
    if (nothing) {
        Py_DECREF(nothing);
        PyErr_SetString(PyExc_SystemError, "_raise() returned");
    }
    return NULL;
}

/* A handler that raised in the middle of a call that cffi makes, which must not return with an
 * exception set: kept for base_held_call, on the same thread. */
static _Thread_local bool in_cffi_call;
static _Thread_local PyObject *kept[3];

static int on_tick(void)
{
    PyGILState_STATE state = PyGILState_Ensure();
    bool outer = in_cffi_call; /* a handler may make fast calls of its own */
    in_cffi_call = false;
    shmp_looked_now(); /* to get here may have taken milliseconds */
    int r = PyErr_CheckSignals();
    in_cffi_call = outer;
    if (r < 0 && in_cffi_call)
        PyErr_Fetch(&kept[0], &kept[1], &kept[2]);
    PyGILState_Release(state);
    return r;
}

static PyObject *base_adopt(PyObject *self, PyObject *address)
{
    void *end = PyLong_AsVoidPtr(address);
    if (end == NULL && PyErr_Occurred())
        return NULL;
    *field(self) = end;
    return none();
}

/* After EINTR: runs the handlers, unless one has raised already (on_tick).  false, with an exception set: one raised, or closed the end;
 * a call does not go on with a closed end, as read(2) would not with a closed descriptor. */
static bool may_resume(PyObject *self, struct shmp_end *end)
{
    if (PyErr_Occurred() || PyErr_CheckSignals() < 0)
        return false;
    if (*field(self) == end)
        return true;
    closed_error();
    return false;
}

/* In one piece: between the two a signal handler could raise, and the end would stay open. */
static PyObject *base_close_end(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct shmp_end *end = *field(self);
    *field(self) = NULL;
    if (end) {
        PyThreadState *saved = PyEval_SaveThread();
        shmp_end_close(end);
        PyEval_RestoreThread(saved);
    }
    return none();
}

/* function(address, *arguments) with the end held, again after each -EINTR.  In C, because an
 * exception from a signal handler must not come between the hold and its release. */
static PyObject *base_held_call(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct shmp_end *end = *field(self);
    if (end == NULL)
        return closed_error();
    PyObject *arguments = nargs > 0 ? PyTuple_New(nargs) : NULL;
    if (arguments == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a function is missing");
        return NULL;
    }
    PyTuple_SetItem(arguments, 0, PyLong_FromVoidPtr(end));
    for (Py_ssize_t i = 1; i < nargs; i++) {
        Py_INCREF(args[i]);
        PyTuple_SetItem(arguments, i, args[i]);
    }
    PyObject *result;
    bool resume;
    shmp_end_hold(end);
    do {
        bool outer = in_cffi_call; /* a handler may come here again */
        in_cffi_call = true;
        result = PyObject_CallObject(args[0], arguments);
        in_cffi_call = outer;
        if (kept[0]) {
            Py_XDECREF(result);
            result = NULL;
            PyErr_Restore(kept[0], kept[1], kept[2]);
            kept[0] = kept[1] = kept[2] = NULL;
        }
        resume = result && PyLong_AsLong(result) == -EINTR && may_resume(self, end);
        if (PyErr_Occurred())
            Py_CLEAR(result);
        else if (resume)
            Py_DECREF(result);
    } while (resume);
    shmp_end_release(end);
    Py_DECREF(arguments);
    return result;
}

/* One transfer, sleeping if it must.  The interpreter lock is held on entry and on return, and
 * given up in between; signal handlers run between spinning and sleeping and after each
 * EINTR (PEP 475).  Returns what the run returned, or -EINTR with an exception set. */
static ssize_t run_blocking(PyObject *self, struct shmp_end *end, struct shmp_transfer *op,
                            int side)
{
    ssize_t r = SHMP_WOULD_SLEEP;
    bool writing = side == SHMP_SIDE_WRITERS;
    shmp_end_hold(end);
    for (;;) {
        bool spun;
        PyThreadState *saved = PyEval_SaveThread();
        spun = shmp_spin(end, side);
        if (spun)
            r = writing ? shmp_write_run(end, op, false) : shmp_read_run(end, op, false);
        PyEval_RestoreThread(saved);
        if (spun && r != SHMP_WOULD_SLEEP)
            break;
        /* A handler that came while we spun would else wait for the sleep to end.  It may
         * fork: the hold is this thread's, and the child keeps it. */
        op->looked = shmp_now_ns();
        if (PyErr_CheckSignals() < 0) {
            r = -EINTR;
            break;
        }
        saved = PyEval_SaveThread();
        r = writing ? shmp_write_run(end, op, true) : shmp_read_run(end, op, true);
        PyEval_RestoreThread(saved);
        if (r != -EINTR || !may_resume(self, end))
            break;
    }
    shmp_end_release(end);
    return r;
}

static ssize_t run(PyObject *self, struct shmp_end *end, struct shmp_transfer *op, int side)
{
    ssize_t r = SHMP_WOULD_SLEEP;
    if (op->left <= KEEP_LOCK_BYTES)
        r = side == SHMP_SIDE_WRITERS ? shmp_write_run(end, op, false)
                                      : shmp_read_run(end, op, false);
    return r == SHMP_WOULD_SLEEP ? run_blocking(self, end, op, side) : r;
}

/* None; and io.BufferedWriter takes the errno of its BlockingIOError from the C variable. */
static PyObject *would_block(void)
{
    errno = EAGAIN;
    return none();
}

static PyObject *count_result(PyObject *self, ssize_t r)
{
    /* A handler raised: what was moved before is lost to the caller, as with os.write (SG-2). */
    if (PyErr_Occurred())
        return NULL;
    if (r >= 0)
        return PyLong_FromSsize_t(r);
    if (r == -EAGAIN)
        return would_block();
    return os_error(self, r);
}

static struct shmp_transfer transfer_of(struct iovec *iov, void *bytes, Py_ssize_t count)
{
    iov->iov_base = bytes;
    iov->iov_len = (size_t)count;
    return (struct shmp_transfer){.cursor = {.iov = iov, .left = 1}, .left = (size_t)count};
}

static PyObject *base_write(PyObject *self, PyObject *data)
{
    struct iovec iov;
    if (PyBytes_CheckExact(data)) {
        struct shmp_end *end = *field(self);
        if (end == NULL)
            return closed_error();
        struct shmp_transfer op = transfer_of(&iov, PyBytes_AsString(data), PyBytes_Size(data));
        return count_result(self, run(self, end, &op, SHMP_SIDE_WRITERS));
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    /* Only now: to get the buffer may run Python code, which may close the end. */
    struct shmp_end *end = *field(self);
    if (end == NULL) {
        PyBuffer_Release(&view);
        return closed_error();
    }
    struct shmp_transfer op = transfer_of(&iov, view.buf, view.len);
    ssize_t r = run(self, end, &op, SHMP_SIDE_WRITERS);
    PyBuffer_Release(&view);
    return count_result(self, r);
}

static PyObject *base_readinto(PyObject *self, PyObject *buffer)
{
    struct iovec iov;
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        if (PyErr_ExceptionMatches(PyExc_BufferError))
            PyErr_SetString(PyExc_TypeError,
                            "readinto() argument must be read-write bytes-like object");
        return NULL;
    }
    struct shmp_end *end = *field(self);
    if (end == NULL) {
        PyBuffer_Release(&view);
        return closed_error();
    }
    struct shmp_transfer op = transfer_of(&iov, view.buf, view.len);
    ssize_t r = run(self, end, &op, SHMP_SIDE_READERS);
    PyBuffer_Release(&view);
    return count_result(self, r);
}

/* How many bytes to make room for is known only under the read lock, and between looking and
 * taking nobody may come: so the bytes object is made while we hold it.  That runs no Python
 * code (bytes are not tracked by the collector), and a death there is like any other. */
static PyObject *read_now(struct shmp_end *end, size_t size, ssize_t *state)
{
    struct shmp_turn turn;
    if (size <= SMALL_BYTES) {
        /* To copy so little twice is cheaper than to walk the slots twice. */
        char small[SMALL_BYTES];
        struct iovec iov;
        struct shmp_transfer op = transfer_of(&iov, small, (Py_ssize_t)size);
        *state = shmp_read_run(end, &op, false);
        return *state > 0 ? PyBytes_FromStringAndSize(small, *state) : NULL;
    }
    ssize_t r = *state = shmp_read_begin(end, size, &turn);
    if (r <= 0)
        return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, r);
    if (bytes == NULL) {
        shmp_turn_end(end, SHMP_SIDE_READERS, &turn, false, false);
        return NULL;
    }
    char *buffer = PyBytes_AsString(bytes);
    if ((size_t)r <= KEEP_LOCK_BYTES) {
        r = shmp_read_finish(end, buffer, (size_t)r, &turn);
    } else {
        shmp_end_hold(end);
        PyThreadState *saved = PyEval_SaveThread();
        r = shmp_read_finish(end, buffer, (size_t)r, &turn);
        PyEval_RestoreThread(saved);
        shmp_end_release(end);
    }
    if (r < 0) {
        Py_DECREF(bytes);
        *state = r;
        return NULL;
    }
    return bytes;
}

/* Until nobody has the read lock: its owner may be dead, and to be succeeded, or stopped. */
static ssize_t wait_turn(PyObject *self, struct shmp_end *end)
{
    for (;;) {
        struct shmp_turn turn;
        PyThreadState *saved = PyEval_SaveThread();
        int r = shmp_turn_begin(end, SHMP_SIDE_READERS, true, &turn);
        if (r == 0)
            shmp_turn_end(end, SHMP_SIDE_READERS, &turn, false, false);
        PyEval_RestoreThread(saved);
        if (r != -EINTR || !may_resume(self, end))
            return r;
    }
}

/* Until there is something to read, or the end.  0, SHMP_THE_END, or -errno, -EINTR with an exception.
 * The caller holds the end. */
static ssize_t wait_readable(PyObject *self, struct shmp_end *end, struct shmp_call *call)
{
    ssize_t r = 0;
    PyThreadState *saved;
    bool spun = false;
    if (shmp_can_spin(end, SHMP_SIDE_READERS)) {
        saved = PyEval_SaveThread();
        spun = shmp_spin(end, SHMP_SIDE_READERS);
        PyEval_RestoreThread(saved);
    }
    while (!spun && r == 0) {
        uint64_t looked = shmp_now_ns(); /* before: a handler may take its time */
        if (PyErr_CheckSignals() < 0) {
            r = -EINTR;
            break;
        }
        if (call->live == NULL && shmp_live_enter_call(&end->pipe->live, call))
            shmp_renew(); /* the caller leaves it */
        saved = PyEval_SaveThread();
        r = shmp_wait_side(end, SHMP_SIDE_READERS, false, looked);
        PyEval_RestoreThread(saved);
        if (r != -EINTR || !may_resume(self, end))
            break;
        r = 0;
    }
    return r;
}

static PyObject *base_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t size = -1;
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "read() takes at most 1 argument");
        return NULL;
    }
    if (nargs == 1 && args[0] != Py_None) {
        size = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
        if (size == -1 && PyErr_Occurred())
            return NULL;
    }
    struct shmp_end *end = *field(self); /* after __index__, which may close it */
    if (end == NULL)
        return closed_error();
    if (size < 0)
        return PyObject_CallMethod(self, "readall", NULL);
    if (size > 0x7ffff000)
        size = 0x7ffff000;
    struct shmp_call call = {0};
    ssize_t r;
    PyObject *bytes = read_now(end, (size_t)size, &r);
    if (r == SHMP_WOULD_SLEEP) {
        /* Held from here on: close() in another thread does not end this call (RD-9). */
        shmp_end_hold(end);
        for (bool busy = false; r == SHMP_WOULD_SLEEP; busy = true) {
            /* The second time there was something to read, but not our turn.  With O_NONBLOCK it
             * is never more than that: the lock may be a dead one's, and the ring empty. */
            bool blocks = (shmp_flags(end) & O_NONBLOCK) == 0;
            r = busy || !blocks ? wait_turn(self, end) : 0;
            if (r == 0 && blocks)
                r = wait_readable(self, end, &call);
            if (r == 0)
                bytes = read_now(end, (size_t)size, &r);
            else if (r == SHMP_THE_END)
                r = 0;
        }
        if (call.live) {
            shmp_hand_on(end, SHMP_SIDE_READERS);
            shmp_live_leave_call(&call);
        }
        shmp_end_release(end);
    }
    if (bytes || r > 0) /* r > 0: out of memory */
        return bytes;
    if (r == 0)
        return PyBytes_FromStringAndSize(NULL, 0);
    if (r == -EAGAIN)
        return would_block();
    return r == -EINTR && PyErr_Occurred() ? NULL : os_error(self, r);
}

PyDoc_STRVAR(read_doc, "read($self, size=-1, /)\n--\n\n"
                       "Up to size bytes: what is there, once anything is (RD-2).\n\n"
                       "b'' at end of file, None if it would block and O_NONBLOCK is set.\n"
                       "A negative size reads to the end.  Interrupted calls go on (PEP 475).");
PyDoc_STRVAR(readinto_doc, "readinto($self, buffer, /)\n--\n\n"
                           "Like read(), into a writable buffer.  Returns the byte count.");
PyDoc_STRVAR(write_doc, "write($self, data, /)\n--\n\n"
                        "Writes data and returns the byte count.\n\n"
                        "Up to PIPE_BUF bytes arrive whole or not at all (WR-4).  A blocking end\n"
                        "waits for room; None if it would block and O_NONBLOCK is set.\n"
                        "BrokenPipeError when nobody holds a read end (WR-1).");
PyDoc_STRVAR(adopt_doc, "Takes ownership of a struct shmp_end by its address.");
PyDoc_STRVAR(close_doc, "Closes the end, if it is open.");
PyDoc_STRVAR(held_call_doc, "function(address, *arguments), the end held; again after -EINTR.");

static PyMethodDef base_methods[] = {
    {"read", (PyCFunction)(void (*)(void))base_read, METH_FASTCALL, read_doc},
    {"readinto", base_readinto, METH_O, readinto_doc},
    {"write", base_write, METH_O, write_doc},
    {"_adopt", base_adopt, METH_O, adopt_doc},
    {"_close_end", base_close_end, METH_NOARGS, close_doc},
    {"_held_call", (PyCFunction)(void (*)(void))base_held_call, METH_FASTCALL, held_call_doc},
    {NULL, NULL, 0, NULL},
};

static PyObject *make_type(void)
{
    PyType_Slot slots[] = {{Py_tp_methods, base_methods}, {0, NULL}};
    PyType_Spec spec = {.name = "shmpipe._fastcall.EndBase",
                        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                        .slots = slots};
    /* Not io.RawIOBase: its metaclass has a tp_new, which Python 3.14 refuses here.  The Python
     * class above derives from both. */
    PyObject *io = PyImport_ImportModule("_io");
    PyObject *raw = io ? PyObject_GetAttrString(io, "_RawIOBase") : NULL;
    PyObject *size = raw ? PyObject_GetAttrString(raw, "__basicsize__") : NULL;
    PyObject *bases = size ? PyTuple_Pack(1, raw) : NULL;
    PyObject *type = NULL;
    if (bases) {
        /* Our field lies behind the base's, whose size is only known here (PEP 697). */
        field_offset = PyLong_AsSsize_t(size);
        spec.basicsize = (int)(field_offset + (Py_ssize_t)sizeof(struct shmp_end *));
        type = PyType_FromSpecWithBases(&spec, bases);
    }
    Py_XDECREF(bases);
    Py_XDECREF(size);
    Py_XDECREF(raw);
    Py_XDECREF(io);
    return type;
}

/* Called once by the Python side through cffi, which has given up the interpreter lock.
 * Puts shmpipe._fastcall with EndBase into sys.modules.  0, or -1 with the error printed. */
int shmp_install_fast(void)
{
    PyGILState_STATE state = PyGILState_Ensure();
    int r = -1;
    PyObject *module = PyImport_AddModule("shmpipe._fastcall"); /* borrowed */
    PyObject *type = module ? make_type() : NULL;
    if (type && PyObject_SetAttrString(module, "EndBase", type) == 0)
        r = 0;
    shmp_on_tick = on_tick;
    Py_XDECREF(type);
    if (PyErr_Occurred())
        PyErr_Print();
    PyGILState_Release(state);
    return r;
}
