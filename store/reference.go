package store

import "fmt"

// reference is one object's mention of another.
type reference struct {
	from   ID
	to     ID
	field  string
	origin Position
}

// eachReference yields what a resource refers to.
func eachReference(r Resource, yield func(reference)) {
	from := ResourceID(r)
	backend := func(key string) ID { return keyID(BackendKind, key) }
	switch r := r.(type) {
	case *GRPCRoute:
		for i := range r.Spec.Rules {
			refs := r.Spec.Rules[i].BackendRefs
			for j := range refs {
				field := fmt.Sprintf("spec.rules[%d].backendRefs[%d].name", i, j)
				yield(reference{from, backend(r.BackendKey(&refs[j])), field, refs[j].Origin})
			}
		}
	case *HTTPRoute:
		for i := range r.Spec.Rules {
			refs := r.Spec.Rules[i].BackendRefs
			for j := range refs {
				field := fmt.Sprintf("spec.rules[%d].backendRefs[%d].name", i, j)
				yield(reference{from, backend(r.BackendKey(&refs[j])), field, refs[j].Origin})
			}
		}
	case *RPCPolicy:
		for i := range r.Spec.TargetRefs {
			ref := &r.Spec.TargetRefs[i]
			field := fmt.Sprintf("spec.targetRefs[%d].name", i)
			yield(reference{from, keyID(ref.Kind, r.TargetKey(ref)), field, ref.Origin})
		}
	}
}
