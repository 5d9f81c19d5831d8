package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

// completionTimeout bounds what a press of the tab key waits for the server.
const completionTimeout = 700 * time.Millisecond

type completer = func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective)

const noFiles = cobra.ShellCompDirectiveNoFileComp

// completionCommand writes scripts that make shells ask this program.
func completionCommand() *cobra.Command {
	scripts := map[string]func(*cobra.Command, io.Writer) error{
		"bash":       func(root *cobra.Command, out io.Writer) error { return root.GenBashCompletionV2(out, true) },
		"fish":       func(root *cobra.Command, out io.Writer) error { return root.GenFishCompletion(out, true) },
		"powershell": (*cobra.Command).GenPowerShellCompletionWithDesc,
		"zsh":        (*cobra.Command).GenZshCompletion,
	}
	shells := slices.Sorted(maps.Keys(scripts))
	return &cobra.Command{
		Use:   "completion " + strings.Join(shells, "|"),
		Short: "Write the script with which a shell completes commands",
		Long: `Write the script with which a shell completes commands, and what is on the server.
Where it belongs, for every new session:

  bash         /etc/bash_completion.d/sluice; needs the package bash-completion
  fish         ~/.config/fish/completions/sluice.fish
  powershell   a line of $PROFILE: sluice completion powershell | Out-String | Invoke-Expression
  zsh          "${fpath[1]}/_sluice"; needs autoload -U compinit; compinit in ~/.zshrc`,
		Example: "  sluice completion bash > /etc/bash_completion.d/sluice\n  source <(sluice completion bash)",
		Args:    wants(1, 1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, noFiles
			}
			return shells, noFiles
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			write, ok := scripts[args[0]]
			if !ok {
				return usageErrorf("unknown shell %q, want %s", args[0], list(shells, "or"))
			}
			return write(cmd.Root(), cmd.OutOrStdout())
		},
	}
}

func fixed(words ...string) completer {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return words, noFiles
	}
}

// complete gives a flag its completion.
func (p *program) complete(cmd *cobra.Command, flag string, complete completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the flag is declared where this is called
	}
}

// asking calls the server on behalf of a press of the tab key: in a short time, and
// without a word when it fails.
func (p *program) asking(cmd *cobra.Command, do func(*call) []cobra.Completion) ([]cobra.Completion, cobra.ShellCompDirective) {
	at, err := p.target(cmd.Flags().Changed("data-dir"), strings.NewReader(""))
	if err != nil {
		return nil, noFiles
	}
	client, err := newClient(at, p.Version)
	if err != nil {
		return nil, noFiles
	}
	defer client.close()
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completionTimeout)
	defer cancel()
	return do(&call{program: p, client: client, ctx: ctx, out: io.Discard, notes: io.Discard}), noFiles
}

func kindWords() []cobra.Completion {
	var words []cobra.Completion
	for _, k := range kinds {
		words = append(words, cobra.CompletionWithDesc(k.short, k.name))
	}
	slices.Sort(words)
	return words
}

// completeRefs completes KIND NAME...; most names, any number when negative.
func (p *program) completeRefs(most int) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return kindWords(), noFiles
		}
		kind, err := parseKind(args[0])
		if err != nil || most >= 0 && len(args) > most {
			return nil, noFiles
		}
		namespace, _ := cmd.Flags().GetString("namespace")
		return p.asking(cmd, func(c *call) []cobra.Completion { return c.objectWords(kind, namespace, args[1:]) })
	}
}

// completeNames completes the one argument of a command for one kind.
func (p *program) completeNames(kind string, namespace *string) completer {
	return p.completeKinds(namespace, kind)
}

// completeKinds completes the one argument of a command for objects of some kinds.
func (p *program) completeKinds(namespace *string, kinds ...string) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, noFiles
		}
		return p.asking(cmd, func(c *call) (words []cobra.Completion) {
			for _, kind := range kinds {
				words = append(words, c.objectWords(kind, *namespace, words)...)
			}
			return words
		})
	}
}

// objectWords are the names of objects as the command line takes them, without
// those that it has.
func (c *call) objectWords(kind, namespace string, without []string) []cobra.Completion {
	var words []cobra.Completion
	for _, o := range c.objects(kind, namespace) {
		name := shortKey(refKey(o.GetRef()))
		if namespace != "" {
			name = o.GetRef().GetName()
		}
		if !slices.Contains(without, name) {
			words = append(words, name)
		}
	}
	return words
}

func (c *call) objects(kind, namespace string) []*adminv1.Object {
	all, err := ask(c.ctx, c.resources.List, &adminv1.ListRequest{Kind: kind, Namespace: namespace})
	if err != nil {
		return nil
	}
	return all.GetObjects()
}

// completeRevisions completes KIND NAME REVISION.
func (p *program) completeRevisions(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) != 2 {
		return p.completeRefs(1)(cmd, args, toComplete)
	}
	namespace, _ := cmd.Flags().GetString("namespace")
	ref, err := parseRef(namespace, args)
	if err != nil {
		return nil, noFiles
	}
	words, _ := p.asking(cmd, func(c *call) (words []cobra.Completion) {
		past, err := ask(c.ctx, c.resources.History, &adminv1.HistoryRequest{Ref: ref})
		if err != nil {
			return nil
		}
		for _, change := range past.GetChanges() {
			words = append(words, cobra.CompletionWithDesc(change.GetRevision(), c.sentence(change)))
		}
		return words
	})
	return words, noFiles | cobra.ShellCompDirectiveKeepOrder // the latest first
}

// completeConflicts completes KIND NAME REVISION of what is in conflict.
func (p *program) completeConflicts(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	namespace, _ := cmd.Flags().GetString("namespace")
	return p.asking(cmd, func(c *call) (words []cobra.Completion) {
		all, err := ask(c.ctx, c.cluster.ListConflicts, &adminv1.ListConflictsRequest{})
		if err != nil {
			return nil
		}
		for _, of := range all.GetConflicts() {
			words = append(words, c.conflictWords(of, namespace, args, cmd.Name() == "take")...)
		}
		slices.Sort(words)
		return slices.Compact(words)
	})
}

// conflictWords are what may come after args of one conflict: its kind, its name, or a
// revision that was lost, of a command that takes one.
func (c *call) conflictWords(of *adminv1.Contested, namespace string, args []string, takes bool) (words []cobra.Completion) {
	ref := of.GetHolds().GetObject().GetRef()
	if namespace != "" && namespace != ref.GetNamespace() {
		return nil
	}
	if len(args) == 0 {
		return []cobra.Completion{shortKind(ref.GetKind())}
	}
	if kind, err := parseKind(args[0]); err != nil || kind != ref.GetKind() {
		return nil
	}
	name := shortKey(refKey(ref))
	if namespace != "" {
		name = ref.GetName()
	}
	switch {
	case len(args) == 1:
		return []cobra.Completion{name}
	case len(args) == 2 && args[1] == name && takes:
		for _, lost := range of.GetLost() {
			words = append(words, cobra.CompletionWithDesc(lost.GetObject().GetRevision(), c.versionText(lost)))
		}
	}
	return words
}

// completeFingerprints completes a fingerprint of a key that some gateway has, or a file.
func (p *program) completeFingerprints(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	words, _ := p.asking(cmd, func(c *call) (words []cobra.Completion) {
		all, err := ask(c.ctx, c.cluster.ListKeys, &adminv1.ListKeysRequest{})
		if err != nil {
			return nil
		}
		for _, a := range all.GetAnswers() {
			words = append(words, a.GetFingerprints()...)
		}
		slices.Sort(words)
		return slices.Compact(words)
	})
	return words, cobra.ShellCompDirectiveDefault
}

// completeSplit completes ROUTE/RULE, then BACKEND= for those of the rule.
func (p *program) completeSplit(namespace *string) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return p.asking(cmd, func(c *call) []cobra.Completion { return c.ruleWords(*namespace) })
		}
		route, rule, err := splitRule(*namespace, args[0])
		if err != nil {
			return nil, noFiles
		}
		words, _ := p.asking(cmd, func(c *call) []cobra.Completion { return c.shareWords(route, rule, args[1:]) })
		return words, noFiles | cobra.ShellCompDirectiveNoSpace
	}
}

func (c *call) ruleWords(namespace string) (words []cobra.Completion) {
	for _, o := range slices.Concat(c.objects(grpcRoute, namespace), c.objects(httpRoute, namespace)) {
		manifest, err := readManifest(o.GetManifest())
		if err != nil {
			continue
		}
		name := o.GetRef().GetName()
		if ns := o.GetRef().GetNamespace(); ns != defaultNamespace && namespace == "" {
			name = ns + "/" + name
		}
		for i, rule := range items(manifest, "spec", "rules") {
			words = append(words, cobra.CompletionWithDesc(name+"/"+ruleLabel(rule, i), ruleShares(o.GetState(), ruleLabel(rule, i), rule)))
		}
	}
	return words
}

func (c *call) shareWords(route *adminv1.Ref, label string, given []string) (words []cobra.Completion) {
	got, err := ask(c.ctx, c.resources.Get, &adminv1.GetRequest{Ref: route})
	if err != nil {
		route.Kind = httpRoute
		got, err = ask(c.ctx, c.resources.Get, &adminv1.GetRequest{Ref: route})
	}
	if err != nil {
		return nil
	}
	manifest, err := readManifest(got.GetObject().GetManifest())
	if err != nil {
		return nil
	}
	for i, rule := range items(manifest, "spec", "rules") {
		if label != "" && label != ruleLabel(rule, i) && label != fmt.Sprint(i) {
			continue
		}
		for _, ref := range items(rule, "backendRefs") {
			word := word(ref, "name") + "="
			if !slices.ContainsFunc(given, func(arg string) bool { return strings.HasPrefix(arg, word) }) {
				words = append(words, word)
			}
		}
	}
	return words
}

// completeEndpoints completes a backend and then those of its endpoints that fit.
func (p *program) completeEndpoints(namespace *string, fits func(*adminv1.Endpoint) bool) completer {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return p.completeNames(backend, namespace)(cmd, args, toComplete)
		}
		ref, err := parseName(backend, *namespace, args[0])
		if err != nil {
			return nil, noFiles
		}
		return p.asking(cmd, func(c *call) (words []cobra.Completion) {
			all, err := ask(c.ctx, c.backends.ListEndpoints, &adminv1.ListEndpointsRequest{Backend: ref})
			if err != nil {
				return nil
			}
			for _, b := range all.GetBackends() {
				for _, e := range b.GetEndpoints() {
					if fits(e) && !slices.Contains(args[1:], e.GetAddress()) {
						words = append(words, cobra.CompletionWithDesc(e.GetAddress(), e.GetState()))
					}
				}
			}
			return words
		})
	}
}

func (p *program) completeContexts(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	known, err := p.contexts()
	if err != nil {
		return nil, noFiles
	}
	return known.names(), noFiles
}

// completeAccounts completes NAME, and NAME ROLE where there is a second argument.
func (p *program) completeAccounts(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		if cmd.Name() == "role" && len(args) == 1 {
			return new(role).names(), noFiles
		}
		return nil, noFiles
	}
	return p.asking(cmd, func(c *call) (words []cobra.Completion) {
		all, err := ask(c.ctx, c.access.ListAccounts, &adminv1.ListAccountsRequest{})
		if err != nil {
			return nil
		}
		for _, account := range all.GetAccounts() {
			words = append(words, cobra.CompletionWithDesc(account.GetName(), roleWord(account.GetRole())))
		}
		return words
	})
}

func (p *program) completeTokens(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return p.asking(cmd, func(c *call) (words []cobra.Completion) {
		all, err := ask(c.ctx, c.access.ListTokens, &adminv1.ListTokensRequest{})
		if err != nil {
			return nil
		}
		for _, token := range all.GetTokens() {
			words = append(words, cobra.CompletionWithDesc(token.GetId(), token.GetName()))
		}
		return words
	})
}
