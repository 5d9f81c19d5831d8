package store

import "fmt"

// mention is one place where an object refers to another.
type mention struct {
	from   ID
	to     ID
	field  string
	origin Position
}

// mentions are all that a resource refers to.
func mentions(r Resource) []mention {
	var all []mention
	from := ResourceID(r)
	add := func(kind, key string, origin Position, field string, indexes ...any) {
		all = append(all, mention{from, keyID(kind, key), fmt.Sprintf(field, indexes...), origin})
	}
	switch r := r.(type) {
	case *GRPCRoute:
		for i, rule := range r.Spec.Rules {
			for j := range rule.BackendRefs {
				ref := &rule.BackendRefs[j]
				add(BackendKind, r.BackendKey(ref), ref.Origin, "spec.rules[%d].backendRefs[%d].name", i, j)
			}
		}
	case *HTTPRoute:
		for i, rule := range r.Spec.Rules {
			for j := range rule.BackendRefs {
				ref := &rule.BackendRefs[j]
				add(BackendKind, r.BackendKey(ref), ref.Origin, "spec.rules[%d].backendRefs[%d].name", i, j)
			}
			for j, f := range rule.Filters {
				if f.RequestMirror != nil {
					ref := &f.RequestMirror.BackendRef
					add(BackendKind, r.MirrorKey(ref), ref.Origin, "spec.rules[%d].filters[%d].requestMirror.backendRef.name", i, j)
				}
			}
		}
	case *RPCPolicy:
		for i := range r.Spec.TargetRefs {
			ref := &r.Spec.TargetRefs[i]
			add(ref.Kind, r.TargetKey(ref), ref.Origin, "spec.targetRefs[%d].name", i)
		}
	}
	return all
}

// keyID is the ID of a kind's object with that key.
func keyID(kind, key string) ID {
	for i := range len(key) {
		if key[i] == '/' {
			return ID{kind, key[:i], key[i+1:]}
		}
	}
	return ID{kind, DefaultNamespace, key}
}

// Unresolved tells which references of an object lead nowhere: none are faults that
// a write is refused for any more, since it is there.
func (s *Snapshot) Unresolved(o *Object) Faults {
	var list faultList
	if o.live() {
		for _, m := range mentions(o.Resource) {
			if _, ok := s.Get(m.to); !ok {
				list.add(m.origin, m.field, "%s is not declared", m.to)
			}
		}
	}
	return list.faults()
}

// unresolved are the references that would lead nowhere because of this plan: those
// of what it declares, and those to what it deletes.
func (p *plan) unresolved() Faults {
	var list faultList
	deleted := map[ID]bool{}
	for _, c := range p.changes {
		if c.After.Deleted {
			deleted[c.ID] = true
		} else if c.Before == nil || c.Before.manifest != c.After.manifest {
			p.addUnresolved(&list, c.After, func(m mention) bool {
				_, ok := p.next.Get(m.to)
				return !ok
			})
		}
	}
	if len(deleted) == 0 {
		return list.faults()
	}
	for _, o := range p.next.All("") {
		old, ok := p.base.Get(o.ID)
		if ok && old.manifest == o.manifest { // others were asked already
			p.addUnresolved(&list, o, func(m mention) bool { return deleted[m.to] })
		}
	}
	return list.faults()
}

func (p *plan) addUnresolved(list *faultList, o *Object, broken func(mention) bool) {
	for _, m := range mentions(o.Resource) {
		if broken(m) {
			list.add(m.origin, m.field, "%s refers to %s, which is not declared", m.from, m.to)
		}
	}
}
