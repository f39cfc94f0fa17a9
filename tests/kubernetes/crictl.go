// A test-only stand-in for cri-tools' crictl, which Debian does not have and kubeadm 1.20 insists on.
//
// It asks the runtime over CRI through the kubelet's own client (compile.sh puts this file into the
// Kubernetes tree), so what kubeadm's preflight and reset see is what a real crictl would show:
// "reset" stops and removes pods through the runtime, network included, not behind its back.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1alpha2"
	"k8s.io/kubernetes/pkg/kubelet/cri/remote"
)

const usage = `crictl (test-only stand-in): crictl [-r unix://SOCKET] COMMAND
  info                     the runtime's conditions, as JSON; fails if the runtime or its CRI is down
  version                  name and version of the runtime
  images [-q] [-o json]    images
  inspecti IMAGE...        fails if an image is not there
  pull IMAGE               pulls, unless the image is there already
  rmi IMAGE...             removes images
  pods [-q]                pod sandboxes, stopped ones too
  ps [-a] [-q]             containers: running ones, all with -a
  stopp, rmp POD...        stop, remove pod sandboxes
  logs CONTAINER           the container's log so far, as the kubelet keeps it
`

// One call's limit. The real tool's 2 s is too short for a test machine whose few cores are shared
// by several nodes; stopping a pod waits for the CNI plugins.
const callTimeout = time.Minute

// Nothing listens for pulls in most tests, so a pull that hangs must end by itself.
const pullTimeout = 2 * time.Minute

func main() {
	endpoint := defaultEndpoint()
	flag.StringVar(&endpoint, "r", endpoint, "")
	flag.StringVar(&endpoint, "runtime-endpoint", endpoint, "")
	// Accepted for compatibility: images are asked for at the same socket, and time limits are fixed.
	flag.String("i", "", "")
	flag.String("image-endpoint", "", "")
	flag.String("t", "", "")
	flag.String("timeout", "", "")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if strings.HasPrefix(endpoint, "/") {
		endpoint = "unix://" + endpoint
	}
	if err := run(endpoint, flag.Arg(0), flag.Args()[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "crictl: %s: %v\n", flag.Arg(0), err)
		os.Exit(1)
	}
}

// defaultEndpoint follows the real tool: the environment, then /etc/crictl.yaml, then containerd.
func defaultEndpoint() string {
	if e := os.Getenv("CONTAINER_RUNTIME_ENDPOINT"); e != "" {
		return e
	}
	config, _ := os.ReadFile("/etc/crictl.yaml")
	for _, line := range strings.Split(string(config), "\n") {
		if rest := strings.TrimPrefix(line, "runtime-endpoint:"); rest != line {
			if e := strings.Trim(rest, " \t\"'"); e != "" {
				return e
			}
		}
	}
	return "unix:///run/containerd/containerd.sock"
}

func run(endpoint, command string, args []string) error {
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	quiet := flags.Bool("q", false, "only identifiers")
	all := flags.Bool("a", false, "stopped containers too")
	output := flags.String("o", "", "json: as JSON (images)")
	// The real tool takes options before and after the arguments; kubeadm and people use both.
	var names []string
	for rest := args; len(rest) > 0; {
		flags.Parse(rest)
		if rest = flags.Args(); len(rest) > 0 {
			names, rest = append(names, rest[0]), rest[1:]
		}
	}
	runtime, err := remote.NewRemoteRuntimeService(endpoint, callTimeout)
	if err != nil {
		return err
	}
	images, err := remote.NewRemoteImageService(endpoint, pullTimeout)
	if err != nil {
		return err
	}
	switch command {
	case "info":
		return info(runtime)
	case "version":
		v, err := runtime.Version("v1alpha2")
		if err == nil {
			fmt.Printf("RuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n", v.RuntimeName, v.RuntimeVersion, v.RuntimeApiVersion)
		}
		return err
	case "images":
		return listImages(images, *quiet, *output == "json")
	case "pods":
		return listPods(runtime, *quiet)
	case "ps":
		return listContainers(runtime, *quiet, *all)
	}
	one, known := map[string]func(string) error{
		"inspecti": func(name string) error { return inspectImage(images, name) },
		"pull":     func(name string) error { return pull(images, name) },
		"rmi":      func(name string) error { return images.RemoveImage(&runtimeapi.ImageSpec{Image: name}) },
		"stopp":    runtime.StopPodSandbox,
		"rmp":      runtime.RemovePodSandbox,
		"logs":     func(id string) error { return logs(runtime, id) },
	}[command]
	if !known {
		return fmt.Errorf("this stand-in does not know the command")
	}
	if len(names) == 0 {
		return fmt.Errorf("which one?")
	}
	for _, name := range names {
		if err := one(name); err != nil {
			return err
		}
	}
	return nil
}

func printJSON(v interface{}) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func info(runtime internalapi.RuntimeService) error {
	status, err := runtime.Status()
	if err != nil {
		return err
	}
	return printJSON(map[string]interface{}{"status": status})
}

// imageJSON has the names that the real tool prints, which are not those of the CRI structure's tags.
type imageJSON struct {
	ID          string   `json:"id"`
	RepoTags    []string `json:"repoTags"`
	RepoDigests []string `json:"repoDigests"`
	Size        uint64   `json:"size,string"`
}

func toJSON(image *runtimeapi.Image) imageJSON {
	return imageJSON{image.Id, image.RepoTags, image.RepoDigests, image.Size_}
}

func listImages(service internalapi.ImageManagerService, quiet, asJSON bool) error {
	images, err := service.ListImages(nil)
	if err != nil {
		return err
	}
	list := []imageJSON{}
	for _, image := range images {
		list = append(list, toJSON(image))
	}
	if asJSON {
		return printJSON(map[string]interface{}{"images": list})
	}
	for _, image := range list {
		if quiet {
			fmt.Println(image.ID)
			continue
		}
		for _, tag := range image.RepoTags {
			fmt.Printf("%-50s %.19s %d\n", tag, image.ID, image.Size)
		}
	}
	return nil
}

func inspectImage(service internalapi.ImageManagerService, name string) error {
	image, err := service.ImageStatus(&runtimeapi.ImageSpec{Image: name})
	if err != nil {
		return err
	}
	if image == nil {
		return fmt.Errorf("no such image %q present", name)
	}
	return printJSON(map[string]interface{}{"status": toJSON(image)})
}

// pull leaves an image alone that is there: tests' images are imported, and their registry does not exist.
func pull(service internalapi.ImageManagerService, name string) error {
	if image, err := service.ImageStatus(&runtimeapi.ImageSpec{Image: name}); err == nil && image != nil {
		fmt.Printf("Image is up to date for %s\n", name)
		return nil
	}
	// The kubelet's client gives a pull no deadline of its own.
	watchdog := time.AfterFunc(pullTimeout, func() {
		fmt.Fprintf(os.Stderr, "crictl: pull: %s: no end after %s\n", name, pullTimeout)
		os.Exit(1)
	})
	defer watchdog.Stop()
	reference, err := service.PullImage(&runtimeapi.ImageSpec{Image: name}, nil, nil)
	if err == nil {
		fmt.Printf("Image is up to date for %s\n", reference)
	}
	return err
}

func listPods(runtime internalapi.RuntimeService, quiet bool) error {
	pods, err := runtime.ListPodSandbox(nil)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if quiet {
			fmt.Println(pod.Id)
			continue
		}
		state := strings.TrimPrefix(pod.State.String(), "SANDBOX_")
		fmt.Printf("%.13s %-10s %s/%s %d\n", pod.Id, state, pod.Metadata.Namespace, pod.Metadata.Name, pod.Metadata.Attempt)
	}
	return nil
}

func listContainers(runtime internalapi.RuntimeService, quiet, all bool) error {
	containers, err := runtime.ListContainers(nil)
	if err != nil {
		return err
	}
	for _, c := range containers {
		if !all && c.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		if quiet {
			fmt.Println(c.Id)
			continue
		}
		state := strings.TrimPrefix(c.State.String(), "CONTAINER_")
		fmt.Printf("%.13s %-10s %-25s %d %.13s %s\n", c.Id, state, c.Metadata.Name, c.Metadata.Attempt, c.PodSandboxId, c.Labels["io.kubernetes.pod.name"])
	}
	return nil
}

// logs takes a container's identifier or its beginning, as ps prints it.
func logs(runtime internalapi.RuntimeService, id string) error {
	containers, err := runtime.ListContainers(nil)
	if err != nil {
		return err
	}
	for _, c := range containers {
		if !strings.HasPrefix(c.Id, id) {
			continue
		}
		status, err := runtime.ContainerStatus(c.Id)
		if err != nil {
			return err
		}
		file, err := os.Open(status.LogPath)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(os.Stdout, file)
		return err
	}
	return fmt.Errorf("no such container %q", id)
}
