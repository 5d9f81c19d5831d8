package admin

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "sluice/admin/v1"
)

// How long a line may be. What is cut off is in the objects' history.
const (
	auditLineBytes = 16 << 10 // with before and after
	auditListed    = 100      // changes and refs of a longer one
	auditTextBytes = 1000     // of what the client wrote
)

// auditLine is a line about what the caller does.
func auditLine(c *caller, action string) *adminv1.AuditEntry {
	e := &adminv1.AuditEntry{Action: action}
	if c != nil {
		e.Actor, e.Role, e.Address, e.Via = c.Actor, roleName(c.Role), c.Address, c.Via
	}
	return e
}

var (
	refName     = (*adminv1.Ref)(nil).ProtoReflect().Descriptor().FullName()
	reasonField = protoreflect.Name("reason")
	dryRunField = protoreflect.Name("dry_run")
)

// describeRequest adds what a request says it is about: the objects it names, and
// its reason.
func describeRequest(e *adminv1.AuditEntry, request proto.Message) {
	m := request.ProtoReflect()
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Name() == reasonField && f.Kind() == protoreflect.StringKind:
			e.Reason = v.String()
		case f.Kind() == protoreflect.MessageKind && !f.IsList() && f.Message().FullName() == refName:
			e.Refs = append(e.Refs, proto.CloneOf(v.Message().Interface().(*adminv1.Ref)))
		}
		return true
	})
}

// isDryRun says whether a request asks for everything but the change.
func isDryRun(request proto.Message) bool {
	m := request.ProtoReflect()
	f := m.Descriptor().Fields().ByName(dryRunField)
	return f != nil && m.Get(f).Bool()
}

// describeChanges adds what was changed, and the objects that it was.
func describeChanges(e *adminv1.AuditEntry, changes []*adminv1.Change) {
	e.Changes = append(e.Changes, changes...)
	for _, c := range changes {
		if c.Ref != nil && !hasRef(e.Refs, c.Ref) {
			e.Refs = append(e.Refs, c.Ref)
		}
	}
}

// hasRef looks at few: a long list is cut off anyway.
func hasRef(refs []*adminv1.Ref, ref *adminv1.Ref) bool {
	for _, r := range refs[:min(len(refs), auditListed)] {
		if r.Kind == ref.Kind && r.Name == ref.Name && namespaceOf(r) == namespaceOf(ref) {
			return true
		}
	}
	return false
}

func namespaceOf(r *adminv1.Ref) string {
	if r.Namespace == "" {
		return "default"
	}
	return r.Namespace
}

// changesOf are those that an answer tells of, if it does.
func changesOf(answer proto.Message) []*adminv1.Change {
	if w, ok := answer.(*adminv1.WriteResponse); ok && w != nil {
		return w.Changes
	}
	return nil
}

// fitAudit returns the line as it may be kept: what the client wrote cut and made
// harmless, and the whole not too long.
func fitAudit(e *adminv1.AuditEntry) *adminv1.AuditEntry {
	e = &adminv1.AuditEntry{
		Actor: plainText(e.Actor), Role: e.Role, Address: plainText(e.Address), Via: e.Via, Action: plainText(e.Action),
		Refs: plainRefs(e.Refs), Refused: e.Refused, Why: plainText(e.Why), Reason: plainText(e.Reason), Changes: e.Changes,
	}
	if proto.Size(e) > auditLineBytes {
		e.Changes = outlines(e.Changes)
	}
	return e
}

func plainRefs(refs []*adminv1.Ref) []*adminv1.Ref {
	listed := make([]*adminv1.Ref, 0, min(len(refs), auditListed+1))
	for _, r := range refs[:min(len(refs), auditListed)] {
		listed = append(listed, &adminv1.Ref{Kind: plainText(r.Kind), Namespace: plainText(r.Namespace), Name: plainText(r.Name)})
	}
	if more := len(refs) - auditListed; more > 0 {
		listed = append(listed, &adminv1.Ref{Name: fmt.Sprintf("and %d more", more)})
	}
	return listed
}

// outlines are changes without what was before and after them.
func outlines(changes []*adminv1.Change) []*adminv1.Change {
	short := make([]*adminv1.Change, 0, min(len(changes), auditListed))
	for _, c := range changes[:min(len(changes), auditListed)] {
		short = append(short, &adminv1.Change{
			Sequence: c.Sequence, Time: c.Time, Action: c.Action, Ref: c.Ref, Revision: c.Revision,
			Before: &adminv1.Object{Revision: c.GetBefore().GetRevision()},
		})
	}
	return short
}

// plainText is what somebody wrote, in one line without anything that a terminal
// obeys, and not longer than it may be.
func plainText(s string) string {
	cut := false
	if len(s) > auditTextBytes {
		s, cut = s[:auditTextBytes], true
		for len(s) > 0 && !utf8.ValidString(s[max(0, len(s)-utf8.UTFMax):]) && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if cut {
		s += "…"
	}
	return s
}

// quoted is a name that somebody sent, as an error shows it.
func quoted(s string) string { return fmt.Sprintf("%q", plainText(s)) }

// The pace of refusals that get a line each: enough for what people do wrong, too
// little to fill a disk.
const (
	refusalBurst       = 100
	refusalEvery       = 10 * time.Second // one more
	refusalBurstOfOne  = 10               // of one address and actor
	refusalEveryOfOne  = time.Minute
	refusalsOfOneKnown = 1024 // addresses and actors; beyond that all are forgotten
)

// auditPace counts refusals. It belongs to the mutex of the log.
type auditPace struct {
	now func() time.Time
	all failures
	of  map[string]*failures
}

func newAuditPace(now func() time.Time) *auditPace {
	return &auditPace{now: now, of: map[string]*failures{}}
}

// admit tells whether one more refusal gets a line.
func (p *auditPace) admit(who string) bool {
	now := p.now()
	one, known := p.of[who]
	if !known {
		if len(p.of) >= refusalsOfOneKnown {
			clear(p.of) // the bound on all of them stays
		}
		one = &failures{}
		p.of[who] = one
	}
	if one.add(0, now, refusalEveryOfOne) > refusalBurstOfOne-1 || p.all.add(0, now, refusalEvery) > refusalBurst-1 {
		return false
	}
	one.add(1, now, refusalEveryOfOne)
	p.all.add(1, now, refusalEvery)
	return true
}
