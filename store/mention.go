package store

import (
	"fmt"
	"strings"
)

// mention is one place where an object refers to another.
type mention struct {
	to     ID
	origin Position
	list   string // the names of the fields on the way, with the indexes
	i, j   int
	field  string
	k      int // of a field with two indexes
}

// path is the way to the mention: "spec.rules[0].backendRefs[1].name".
func (m mention) path() string {
	if m.field == "" {
		return fmt.Sprintf("spec.%s[%d].name", m.list, m.i)
	}
	indexes := []any{m.j, m.k}[:strings.Count(m.field, "%d")]
	return fmt.Sprintf("spec.%s[%d].%s", m.list, m.i, fmt.Sprintf(m.field, indexes...))
}

// eachMention yields all that a resource refers to.
func eachMention(r Resource, yield func(mention)) {
	switch r := r.(type) {
	case *GRPCRoute:
		for i := range r.Spec.Rules {
			eachBackendMention(r.Namespace, i, r.Spec.Rules[i].BackendRefs, yield)
		}
	case *HTTPRoute:
		for i := range r.Spec.Rules {
			rule := &r.Spec.Rules[i]
			eachBackendMention(r.Namespace, i, rule.BackendRefs, yield)
			eachMirror(r.Namespace, rule.Filters, func(at int, m mention) {
				m.i, m.j, m.field = i, at, "filters[%d].requestMirror.backendRef.name"
				yield(m)
			})
			for j := range rule.BackendRefs {
				eachMirror(r.Namespace, rule.BackendRefs[j].Filters, func(at int, m mention) {
					m.i, m.j, m.k, m.field = i, j, at, "backendRefs[%d].filters[%d].requestMirror.backendRef.name"
					yield(m)
				})
			}
		}
	case *Schema:
		for i := range r.Spec.BackendRefs {
			ref := &r.Spec.BackendRefs[i]
			to := backendID(r.Namespace, ref.Namespace, ref.Name)
			yield(mention{to: to, origin: ref.Origin, list: "backendRefs", i: i})
		}
	case *RPCPolicy:
		for i := range r.Spec.TargetRefs {
			ref := &r.Spec.TargetRefs[i]
			yield(mention{to: ID{ref.Kind, r.Namespace, ref.Name}, origin: ref.Origin, list: "targetRefs", i: i})
		}
	}
}

// References are the objects that a resource refers to, each once, in the order of the
// references.
func References(r Resource) []ID {
	var ids []ID
	seen := map[ID]bool{}
	eachMention(r, func(m mention) {
		if !seen[m.to] {
			seen[m.to] = true
			ids = append(ids, m.to)
		}
	})
	return ids
}

func eachBackendMention(own string, rule int, refs []BackendRef, yield func(mention)) {
	for j := range refs {
		to := backendID(own, refs[j].Namespace, refs[j].Name)
		yield(mention{to: to, origin: refs[j].Origin, list: "rules", i: rule, j: j, field: "backendRefs[%d].name"})
	}
}

// eachMirror yields a mention by each filter of a list that mirrors, with where the
// filter stands; the caller knows where the list does.
func eachMirror(own string, filters []Filter, yield func(at int, m mention)) {
	for at := range filters {
		if mirror := filters[at].RequestMirror; mirror != nil {
			ref := &mirror.BackendRef
			yield(at, mention{to: backendID(own, ref.Namespace, ref.Name), origin: ref.Origin, list: "rules"})
		}
	}
}

// backendID is the Backend that an object of namespace own refers to.
func backendID(own, namespace, name string) ID {
	if namespace == "" {
		namespace = own
	}
	return ID{BackendKind, namespace, name}
}

// Unresolved tells which references of an object lead nowhere: none are faults that
// a write is refused for any more, since it is there.
func (s *Snapshot) Unresolved(o *Object) Faults {
	var list faultList
	if o.live() {
		eachMention(o.Resource, func(m mention) {
			if _, ok := s.Get(m.to); !ok {
				list.add(m.origin, m.path(), "%s is not declared", m.to)
			}
		})
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
			list.addUnresolved(c.After, "which is not declared", func(to ID) bool {
				_, ok := p.next.Get(to)
				return !ok
			})
		}
	}
	if len(deleted) == 0 {
		return list.faults()
	}
	for k := range p.next.live {
		for _, o := range p.next.live[k] {
			old, ok := p.base.Get(o.ID)
			if ok && old.manifest == o.manifest { // others were asked already
				list.addUnresolved(o, "which would be gone; change that first, or allow references that lead nowhere", func(to ID) bool { return deleted[to] })
			}
		}
	}
	return list.faults()
}

// addUnresolved has a fault for each broken reference of an object; because ends it.
func (l *faultList) addUnresolved(o *Object, because string, broken func(ID) bool) {
	eachMention(o.Resource, func(m mention) {
		if broken(m.to) {
			l.add(m.origin, m.path(), "%s refers to %s, %s", o.ID, m.to, because)
		}
	})
}
