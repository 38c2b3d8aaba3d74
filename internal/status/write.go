package status

import (
	"context"
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// job is one write. It is good for one version of the object.
type job struct {
	item   *item // for the loop; not to be touched
	kind   *kind
	key    object.Key
	base   metav1.Object
	change *change
	want   any
}

// result is how a job ended.
type result struct {
	item   *item
	want   any
	result Result
	object metav1.Object // as the API server has it now, if it said
	err    error
}

// write sends the patch of a job. If the object is another by now, it returns that one: whether it is still to be written, and as what, is for the newest offer
// to say.
func (w *Writer) write(ctx context.Context, j job) result {
	ctx, cancel := context.WithTimeout(ctx, w.opt.Timeout)
	defer cancel()
	r := result{item: j.item, want: j.want}
	typ, body, err := j.change.patch(j.base.GetResourceVersion())
	if err != nil {
		r.result, r.err = Refused, err
	} else if o, err := j.kind.patch(ctx, j.key, typ, body); err != nil {
		r.result, r.err = judge(err), err
	} else {
		r.result, r.object = Written, o
	}
	// A patch may be no good for another version of the object in more ways than one: it may also name places that are not there.
	if r.result == Conflict || apierrors.IsInvalid(r.err) {
		w.lookAgain(ctx, j, &r)
	}
	w.opt.Hooks.Written(j.kind.name, r.result)
	return r
}

// lookAgain finds out what has become of an object that refused a patch.
func (w *Writer) lookAgain(ctx context.Context, j job, r *result) {
	live, err := j.kind.get(ctx, j.key)
	switch {
	case err != nil:
		r.result, r.err = judge(err), err
	case live.GetUID() != j.base.GetUID():
		r.result = Gone
	case live.GetResourceVersion() != j.base.GetResourceVersion():
		r.result, r.object = Conflict, live
	default:
		r.result = Refused // it is not that
	}
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
