package compile

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// verdict is one yes or no of a status: the zero value is yes. Otherwise Reason is the reason of the condition, and Message says why in words.
type verdict struct{ Reason, Message string }

// ok tells whether v is yes.
func (v verdict) ok() bool { return v.Reason == "" }

// or returns v, or w when v is yes.
func (v verdict) or(w verdict) verdict {
	if v.ok() {
		return w
	}
	return v
}

// condition returns the condition typ that v stands for. Its reason when true is yes, which in Gateway API is mostly the type itself.
func (v verdict) condition(typ, yes string, generation int64) metav1.Condition {
	c := metav1.Condition{Type: typ, Status: metav1.ConditionTrue, Reason: yes, ObservedGeneration: generation}
	if !v.ok() {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v.Reason, v.Message
	}
	return c
}

// opposite turns the status of a condition around, for those whose yes is bad news.
func opposite(s metav1.ConditionStatus) metav1.ConditionStatus {
	if s == metav1.ConditionTrue {
		return metav1.ConditionFalse
	}
	return metav1.ConditionTrue
}
