package store

import (
	"fmt"
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
		w.about(r, "no request is routed by it in this version")
	}
	for _, p := range s.RPCPolicies {
		if idle := p.Spec.idle(); len(idle) > 0 {
			w.about(p, "not in force in this version: "+strings.Join(idle, ", "))
		}
	}
	return w.lines()
}

// idle has the fields that are set and do nothing yet.
func (s *RPCPolicySpec) idle() []string {
	var fields []string
	if s.Timeouts != nil {
		fields = append(fields, "timeouts")
	}
	if s.Retry != nil {
		fields = append(fields, "retry")
	}
	if s.RetryConstraint != nil {
		fields = append(fields, "retryConstraint")
	}
	return fields
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

func (w *warningList) about(r Resource, what string) {
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
