package status

import (
	"context"
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// job is one write.
type job struct {
	item   *item // for the loop; not to be touched
	kind   *kind
	key    object.Key
	base   metav1.Object // the version that change is good for
	change *change
	want   any
	stale  bool // base is known to be outdated
}

// result is how a job ended.
type result struct {
	item   *item
	want   any
	result Result
	object metav1.Object // as the API server has it now, if it said
	err    error
}

// unwanted is the result of a job that turned out to be none. It is told to nobody.
const unwanted Result = ""

// write sends the patch of a job. If the object is another by now, it makes a patch for that one and sends it at once: the longer it waits, the more likely it
// is that somebody is faster again.
func (w *Writer) write(ctx context.Context, j job) result {
	ctx, cancel := context.WithTimeout(ctx, w.opt.Timeout)
	defer cancel()
	r := result{item: j.item, want: j.want}
	for again := false; ; again = true {
		if j.stale {
			ok := w.refresh(ctx, &j, &r)
			if again && r.result != Refused {
				w.opt.Hooks.Written(j.kind.name, Conflict)
			} else if !ok && r.result != unwanted {
				w.opt.Hooks.Written(j.kind.name, r.result)
			}
			if !ok {
				return r
			}
		}
		w.send(ctx, j, &r)
		// A patch may be no good for another version of the object in more ways than one: it may also name places that are not there.
		if j.stale = r.result == Conflict || apierrors.IsInvalid(r.err); again || !j.stale {
			w.opt.Hooks.Written(j.kind.name, r.result)
			return r
		}
	}
}

// send sends the patch of a job once.
func (w *Writer) send(ctx context.Context, j job, r *result) {
	typ, body, err := j.change.patch(j.base.GetResourceVersion())
	if err != nil {
		r.result, r.err = Refused, err
		return
	}
	o, err := j.kind.patch(ctx, j.key, typ, body)
	if err != nil {
		r.result, r.err = judge(err), err
		return
	}
	r.result, r.object, r.err = Written, o, nil
}

// refresh makes j a job for the object as it is now. It returns false if there is nothing to do with that one, and r says why.
func (w *Writer) refresh(ctx context.Context, j *job, r *result) bool {
	live, err := j.kind.get(ctx, j.key)
	if err != nil {
		r.result, r.err = judge(err), err
		return false
	}
	switch {
	case live.GetUID() != j.base.GetUID():
		r.result = Gone
		return false
	case live.GetResourceVersion() == j.base.GetResourceVersion() && apierrors.IsInvalid(r.err):
		r.result = Refused // it was not that
		return false
	}
	r.object, r.result = live, unwanted
	if live.GetGeneration() != j.base.GetGeneration() {
		return false // the wanted status is about what was
	}
	j.base, j.stale, j.change = live, false, &change{about: j.change.about, now: j.change.now}
	j.kind.compare(j.change, live, j.want)
	return !j.change.empty()
}

// judge says what an error means.
func judge(err error) Result {
	var s apierrors.APIStatus
	switch {
	case !errors.As(err, &s):
		return Failed
	case apierrors.IsNotFound(err):
		return Gone
	case apierrors.IsConflict(err):
		return Conflict
	}
	switch code := s.Status().Code; {
	case code == http.StatusUnauthorized, code == http.StatusTooManyRequests:
		return Failed
	case code >= http.StatusBadRequest && code < http.StatusInternalServerError:
		return Refused
	}
	return Failed
}

// reason returns the API server's word for an error.
func reason(err error) string { return string(apierrors.ReasonForError(err)) }
