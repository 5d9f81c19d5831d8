package gateway

import (
	"testing"

	"sluice/store"
)

func TestPathLeadsComparesWhatIsKnownOfATemplate(t *testing.T) {
	tests := []struct {
		how             store.MatchType
		value, template string
		want            bool
	}{
		{store.PathPrefix, "/", "/v1/books", true},
		{store.PathPrefix, "/v1", "/v1/books", true},
		{store.PathPrefix, "/v1/", "/v1/books", true},
		{store.PathPrefix, "/v1", "/v1", true},
		{store.PathPrefix, "/v1", "/v10/books", false},
		{store.PathPrefix, "/v1/books", "/v1/{name}", true},
		{store.PathPrefix, "/v1/books", "/v1/{name=shelves/*}", false},
		{store.PathPrefix, "/v1/shelves", "/v1/{name=shelves/*/books/*}", true},
		{store.PathPrefix, "/v1/shelves/7", "/v1/{name=shelves/*/books/*}", true},
		{store.PathPrefix, "/v2", "/v1/*/books", false},
		{store.PathPrefix, "/v1/any", "/v1/*/books", true},
		{store.Exact, "/v1/books", "/v1/books", true},
		{store.Exact, "/v1/books/", "/v1/books", false},
		{store.Exact, "/v1/books/7", "/v1/books/{id}", true},
		{store.Exact, "/v1/shelves/7", "/v1/books/{id}", false},
		{store.Exact, "/shop.v1.Cart/Get", "/shop.v1.Cart/Get", true},
		{store.RegularExpression, "/v2.*", "/v1/books", true}, // only a request can tell
	}
	for _, tt := range tests {
		if got := pathLeads(store.PathMatch{Type: tt.how, Value: tt.value}, tt.template); got != tt.want {
			t.Errorf("%s %s, template %s: %v, want %v", tt.how, tt.value, tt.template, got, tt.want)
		}
	}
}

func TestGRPCRuleTakesWhatItsMatchesMean(t *testing.T) {
	method := func(how store.MatchType, service, method string) store.GRPCRouteMatch {
		return store.GRPCRouteMatch{Method: &store.MethodMatch{Type: how, Service: service, Method: method}}
	}
	tests := []struct {
		name    string
		matches []store.GRPCRouteMatch
		path    string
		want    bool
	}{
		{"no matches", nil, "/a.B/C", true},
		{"headers alone", []store.GRPCRouteMatch{{}}, "/a.B/C", true},
		{"its service", []store.GRPCRouteMatch{method(store.Exact, "a.B", "")}, "/a.B/C", true},
		{"another service", []store.GRPCRouteMatch{method(store.Exact, "a.X", "")}, "/a.B/C", false},
		{"its method", []store.GRPCRouteMatch{method(store.Exact, "", "C")}, "/a.B/C", true},
		{"one of two", []store.GRPCRouteMatch{method(store.Exact, "x", "y"), method(store.Exact, "a.B", "C")}, "/a.B/C", true},
		{"an expression for the whole", []store.GRPCRouteMatch{method(store.RegularExpression, "a", "")}, "/a.B/C", false},
		{"an expression", []store.GRPCRouteMatch{method(store.RegularExpression, `a\..*`, "C|D")}, "/a.B/C", true},
	}
	for _, tt := range tests {
		if got := grpcRuleTakes(&store.GRPCRouteRule{Matches: tt.matches})(tt.path); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
