package cli

import (
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestRulesOfHTTPRoutesAreDescribed(t *testing.T) {
	const text = `
matches:
- {path: {type: PathPrefix, value: /}}
- {path: {type: PathPrefix, value: /api}, method: GET}
- {path: {type: Exact, value: /api/v1}, headers: [{type: Exact, name: x-tenant, value: beta}], queryParams: [{type: Exact, name: debug, value: "1"}]}
- {path: {type: RegularExpression, value: "/[a-z]+"}, queryParams: [{type: RegularExpression, name: q, value: a.*}]}
filters:
- {type: URLRewrite}
- {type: CORS}
`
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	rule := document.Content[0]
	want := []string{"every path", "GET /api and below", "/api/v1, x-tenant: beta, ?debug=1", "/[a-z]+ (regular expression), ?q ~ a.*"}
	if got := matchTexts(rule); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := filterTypes(rule); !slices.Equal(got, []string{"URLRewrite", "CORS"}) {
		t.Errorf("filters %q", got)
	}
}
