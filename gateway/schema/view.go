package schema

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// View is what is known at one moment. It does not change, and reading it takes no lock.
type View struct {
	methods  []*Method
	sources  []Source
	backends map[string][]*Schema // with those of every backend at the end
	every    []*Schema            // of objects that name no backend
}

// Where a schema came from.
const (
	KindReflection = "reflection"
	KindObject     = "object"
)

// Source is where a schema came from, or did not.
type Source struct {
	Backend string // key, "" of an object for every backend
	Object  string // key of the Schema object, "" of reflection
	Kind    string // KindReflection or KindObject
	Version string // of reflection: "v1" or "v1alpha"
	Methods int
	Learnt  time.Time // when reflection answered last; zero when it never did
	Err     string    // why there is nothing, or nothing newer; or what was left out
}

// Methods are all methods by path, those of every schema: a path stands there twice when
// two backends describe it in different schemas. The list is not to be changed.
func (v *View) Methods() []*Method { return v.methods }

// Sources are where the schemas came from, by backend and object. The list is not to be
// changed.
func (v *View) Sources() []Source { return v.sources }

// Schemas are what describes a backend, best first: the Schema objects that name it, or
// else its reflection; then the objects that name no backend. The list is not to be
// changed.
func (v *View) Schemas(backend string) []*Schema {
	if list, ok := v.backends[backend]; ok {
		return list
	}
	return v.every
}

// Backend is the best schema of a backend, nil when there is none.
func (v *View) Backend(key string) *Schema {
	if list := v.Schemas(key); len(list) > 0 {
		return list[0]
	}
	return nil
}

// Method is a method as a backend has it, by all that is known now; nil when nothing
// tells of it.
func (v *View) Method(backend, path string) *Method {
	for _, s := range v.Schemas(backend) {
		if m := s.Method(path); m != nil {
			return m
		}
	}
	return nil
}

// collect fills in the methods of all schemas, each schema once.
func (v *View) collect() {
	seen := make(map[*Schema]bool)
	add := func(schemas []*Schema) {
		for _, s := range schemas {
			if !seen[s] {
				seen[s] = true
				v.methods = append(v.methods, s.Methods()...)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(v.backends)) {
		add(v.backends[key])
	}
	add(v.every)
	slices.SortStableFunc(v.methods, func(a, b *Method) int { return cmp.Compare(a.Path, b.Path) })
}
