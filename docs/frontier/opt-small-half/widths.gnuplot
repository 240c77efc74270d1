set terminal svg size 1012,420 dynamic font 'sans,12' background 'white'
set output 'widths.svg'
set title 'opt-small, 50 % sparsity, groups of 64, calibrated on wikitext2.calib.txt: widths of budget-model 4' noenhanced
set style data histograms
set style histogram rowstacked
set style fill solid 0.9
set boxwidth 0.85
set yrange [0:100]
set ylabel 'channels, %'
set xtics rotate by 60 right noenhanced font ',10'
set key outside right noenhanced
$data << EOD
"0.self_attn.k_proj" 0 8.78906 90.625 0.585938 0
"0.self_attn.v_proj" 0 0 33.0078 66.9922 0
"0.self_attn.q_proj" 0 27.5391 72.4609 0 0
"0.self_attn.out_proj" 0 0 2.73438 97.2656 0
"0.fc1" 0 0 26.9531 73.0469 0
"0.fc2" 0 0 98.2422 1.75781 0
"1.self_attn.k_proj" 5.66406 78.9062 15.4297 0 0
"1.self_attn.v_proj" 22.4609 77.5391 0 0 0
"1.self_attn.q_proj" 0 31.0547 63.8672 5.07812 0
"1.self_attn.out_proj" 34.9609 64.6484 0.390625 0 0
"1.fc1" 5.0293 51.2207 43.75 0 0
"1.fc2" 0 2.53906 97.4609 0 0
"2.self_attn.k_proj" 0 2.34375 97.6562 0 0
"2.self_attn.v_proj" 0 16.4062 83.5938 0 0
"2.self_attn.q_proj" 0 94.3359 5.66406 0 0
"2.self_attn.out_proj" 0 7.8125 92.1875 0 0
"2.fc1" 0.0976562 2.49023 97.4121 0 0
"2.fc2" 0 1.36719 98.6328 0 0
"3.self_attn.k_proj" 0 11.3281 88.6719 0 0
"3.self_attn.v_proj" 0 0 100 0 0
"3.self_attn.q_proj" 0 90.2344 9.76562 0 0
"3.self_attn.out_proj" 0 0.585938 99.4141 0 0
"3.fc1" 0 0.439453 99.5605 0 0
"3.fc2" 0 0.976562 99.0234 0 0
"4.self_attn.k_proj" 0 7.22656 92.7734 0 0
"4.self_attn.v_proj" 0 0 100 0 0
"4.self_attn.q_proj" 0 34.375 65.625 0 0
"4.self_attn.out_proj" 0 0 99.4141 0.585938 0
"4.fc1" 0 0.0976562 99.9023 0 0
"4.fc2" 0 0 99.4141 0.585938 0
"5.self_attn.k_proj" 0 0 100 0 0
"5.self_attn.v_proj" 0 0.195312 98.6328 1.17188 0
"5.self_attn.q_proj" 0 2.73438 97.2656 0 0
"5.self_attn.out_proj" 0 0 98.2422 1.75781 0
"5.fc1" 0 0.195312 99.2676 0.537109 0
"5.fc2" 0 0 99.2188 0.78125 0
EOD
plot $data using 2:xtic(1) lc rgb '#313695' title '2 bits', $data using 3 lc rgb '#74add1' title '3 bits', $data using 4 lc rgb '#fee090' title '4 bits', $data using 5 lc rgb '#f46d43' title '6 bits', $data using 6 lc rgb '#a50026' title '8 bits'
