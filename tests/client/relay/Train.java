import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Pattern;

/** What child.py does, in Java: metrics, an artifact and the run's end; "Train FOLDER METRICS". */
class Train {
    static final HttpClient CLIENT =
            HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    static String run;

    public static void main(String[] args) throws Exception {
        Path folder = Path.of(args[0]);
        int count = Integer.parseInt(args[1]);
        var made = Pattern.compile("\"run_id\": *\"([0-9a-f]{32})\"")
                .matcher(post("runs/create", "{\"experiment_id\": \"0\"}"));
        made.find();
        run = made.group(1);
        log(0, count);
        Files.writeString(folder.resolve("half"), run);
        while (!Files.exists(folder.resolve("go"))) Thread.sleep(20);
        log(count, 2 * count);
        send("mlflow-artifacts/artifacts/0/" + run + "/artifacts/model.bin",
                "PUT", BodyPublishers.ofByteArray(new byte[1 << 20]));
        post("runs/update", "{\"run_id\": \"" + run + "\", \"status\": \"FINISHED\"}");
    }

    static void log(int first, int last) throws Exception {
        for (int step = first; step < last; step++)
            post("runs/log-metric", ("{'run_id': '%s', 'key': 'at_once', 'value': %d, "
                    + "'timestamp': 1, 'step': %d}").formatted(run, step, step).replace('\'', '"'));
    }

    static String post(String name, String body) throws Exception {
        return send("mlflow/" + name, "POST", BodyPublishers.ofString(body));
    }

    static String send(String path, String method, HttpRequest.BodyPublisher body)
            throws Exception {
        var request = HttpRequest.newBuilder()
                .uri(URI.create(System.getenv("MLFLOW_TRACKING_URI") + "/api/2.0/" + path))
                .header("Authorization", "Bearer " + System.getenv("MLFLOW_TRACKING_TOKEN"))
                .header("Content-Type", "application/json").method(method, body).build();
        var answer = CLIENT.send(request, BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new IllegalStateException(answer.body());
        return answer.body();
    }
}
