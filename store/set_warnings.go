package store

import (
	"fmt"
	"slices"
	"strings"
)

// maxWarnings is how many warnings are listed; the rest is counted.
const maxWarnings = 20

// Warnings has a line for each object of which something, or all, is not in force in
// this version. None of it is a fault.
func (s *Set) Warnings() []string {
	var w warningList
	for _, i := range s.Ignored {
		w.add(i.String())
	}
	for _, r := range s.HTTPRoutes {
		w.about(r)
	}
	return w.lines()
}

// NotInForce names what a resource declares and this version does not do; it is empty
// when there is nothing.
func NotInForce(r Resource) string {
	route, ok := r.(*HTTPRoute)
	if !ok {
		return ""
	}
	fields := route.Spec.idle()
	if len(fields) == 0 {
		return ""
	}
	return "not in force in this version: " + strings.Join(fields, ", ")
}

// idle has the fields that are set and do nothing yet, each once.
func (s *HTTPRouteSpec) idle() []string {
	mirrors := false
	mirror := func(f Filter) bool { return f.RequestMirror != nil }
	for i := range s.Rules {
		rule := &s.Rules[i]
		mirrors = mirrors || slices.ContainsFunc(rule.Filters, mirror)
		for j := range rule.BackendRefs {
			mirrors = mirrors || slices.ContainsFunc(rule.BackendRefs[j].Filters, mirror)
		}
	}
	if mirrors {
		return []string{"filter RequestMirror"}
	}
	return nil
}

// warningList gathers warnings as they are found.
type warningList struct {
	found []string
	more  int // found when found was full
}

func (w *warningList) add(line string) {
	if len(w.found) == maxWarnings {
		w.more++
		return
	}
	w.found = append(w.found, line)
}

func (w *warningList) about(r Resource) {
	what := NotInForce(r)
	if what == "" {
		return
	}
	line := fmt.Sprintf("%s %s: %s", r.Kind(), r.Metadata().Key(), what)
	if where := r.Metadata().Origin.String(); where != "" {
		line = where + ": " + line
	}
	w.add(line)
}

func (w *warningList) lines() []string {
	if w.more == 0 {
		return w.found
	}
	return append(w.found, fmt.Sprintf("and %d more", w.more))
}
