package schema

import (
	"reflect"
	"testing"
)

func TestCompileFindsMethodsAndTheirBindings(t *testing.T) {
	s := schemaOf(t, shop)
	m := s.Method("/shop.v1.Cart/Get")
	if m == nil || len(s.Methods()) != 2 {
		t.Fatalf("methods %v", s.Methods())
	}
	want := []Binding{
		{Verb: "GET", Template: "/v1/{name=carts/*}", ResponseBody: "items"},
		{Verb: "POST", Template: "/v1/carts:get", Body: "*"},
		{Verb: "HEAD", Template: "/v1/any"},
	}
	if !reflect.DeepEqual(m.Bindings, want) {
		t.Errorf("bindings %+v, want %+v", m.Bindings, want)
	}
	if !m.NoSideEffects || m.ServerStreaming || m.Schema != s {
		t.Errorf("method %+v", m)
	}
	if w := s.Method("/shop.v1.Cart/Watch"); !w.ServerStreaming || w.ClientStreaming || w.NoSideEffects || len(w.Bindings) > 0 {
		t.Errorf("method %+v", w)
	}
}
